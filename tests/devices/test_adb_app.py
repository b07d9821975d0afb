"""The demo app's bench activity, asked over the real adb; Android's commands and the app are played.

What `am`, `pm` and `pidof` say is what Android's documentation says that they do; that was never held against
a phone. The other end, the activity itself, is tested under Robolectric (BenchTest.kt).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl.devices.adb import APP_FILES, NEVER_RUN, AdbApp
from pocketvl.devices.base import BenchRequest
from pocketvl_runtime.errors import BackendError
from tests.devices.conftest import StartPhone
from tests.devices.phone import SERIAL, Phone

BUNDLE = Path(__file__).parents[1] / "bundles" / "format-2.0"
REQUEST = BenchRequest(("tflite-fp32",), (1, 2), 3, timeout_s=30)
STARTED = """\
Starting: Intent { cmp=dev.pocketvl.demo/.BenchActivity (has extras) }
Status: ok
LaunchState: COLD
Activity: dev.pocketvl.demo/.BenchActivity
TotalTime: 431
WaitTime: 440
Complete"""
PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "One",
    "ro.soc.model": "Tensor",
    "ro.build.version.release": "15",
}


def latency() -> dict[str, float]:
    return {"p10": 1.0, "median": 2.0, "p90": 3.0, "p99": 4.0, "max": 4.0, "n": 3}


RESULT = {
    "format": "pocketvl-bench",
    "version": "1.1",
    "tool": {"name": "pocketvl-demo", "version": "0.1.0"},
    "machine": {
        "device": "Example One",
        "cpu": "Tensor",
        "architecture": "aarch64",
        "isa": "neon+dotprod",
        "exact_int8": True,
        "processors": 8,
        "usable_processors": 8,
        "memory_bytes": None,
        "os": "Android 15",
        "governors": [],
        "emulated": False,
    },
    "bundle": {"name": "toy", "manifest_file_sha256": "0" * 64},
    "settings": {"runs": 3, "warmup_runs": 1, "interleaved": True, "seed": None, "inputs": "golden"},
    "variants": {
        "tflite-fp32": {
            "engine": {"name": "org.tensorflow:tensorflow-lite", "version": "2.16.1"},
            "timings": [{"threads": n, "load_ms": 1.0, "stages": {"total": latency()}} for n in (1, 2)],
            "peak_memory_bytes": None,
            "notes": [],
        }
    },
    "conditions": {"interval_s": 1.0, "samples": [], "throttled": None, "energy_j": None, "warnings": []},
}


def commands(
    activity: str = "", started: str = STARTED, packages: str = "package:dev.pocketvl.demo", thermal: int = 0
) -> dict[str, str]:
    """Android's commands; `activity` is what the app does meanwhile, with `$out` its result's path."""
    cases = "\n".join(f'{name}) echo "{value}";;' for name, value in PROPERTIES.items())
    return {
        "pm": f'echo "{packages}"',
        "getprop": f'case "$1" in\n{cases}\n*) echo;;\nesac',
        "dumpsys": f'[ "$1" = thermalservice ] && echo "IsStatusOverride: false\n Thermal Status: {thermal}"',
        "pidof": "cat /data/pid 2>/dev/null && kill -0 $(cat /data/pid) 2>/dev/null",
        "am": f"""
echo "$@" >> /data/am
[ "$1" = force-stop ] && {{ test -f /data/pid && kill $(cat /data/pid); exit 0; }}
out={APP_FILES}/$(echo "$@" | sed 's/.*--es out \\([^ ]*\\).*/\\1/')
mkdir -p {APP_FILES}
case "$*" in *"--es out"*) ( {activity or ":"} ) > /dev/null 2>&1 & echo $! > /data/pid;; esac
cat <<'END'
{started}
END""",
    }


def finishing(result: object = RESULT) -> str:
    text = json.dumps(result)
    return f"""
echo '{{"done": 0, "count": 8}}' > $out.progress; sleep 2
echo '{{"done": 4, "count": 8}}' > $out.progress; sleep 2
cat > $out <<'RESULT'
{text}
RESULT
echo "{{\\"done\\": 8, \\"count\\": 8, \\"written\\": \\"$out\\"}}" > $out.progress; sleep 60"""


def left_on(phone: Phone) -> str:
    return phone.adb("shell", f"find {APP_FILES} -name 'pocketvl-*'").strip()


def message(request: BenchRequest = REQUEST) -> str:
    with pytest.raises(BackendError) as caught, AdbApp(BUNDLE, SERIAL) as device:
        device.bench(request)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_activity_is_started_watched_and_its_result_fetched(start_phone: StartPhone) -> None:
    phone = start_phone(commands=commands(finishing()))
    told: list[tuple[int, int]] = []
    with AdbApp(BUNDLE, SERIAL) as device:
        pushed = phone.adb("shell", f"ls {APP_FILES}/bundles/pocketvl-*").split()
        result = device.bench(REQUEST, lambda done, count, what: told.append((done, count)))
    assert "manifest.json" in pushed
    assert told
    assert set(told) <= {(0, 8), (4, 8)}
    assert result.variants["tflite-fp32"].notes == (NEVER_RUN,)
    assert result.conditions is not None
    assert result.conditions.throttled is False
    assert left_on(phone) == ""
    started = phone.adb("shell", "grep ^start /data/am")
    for words in (
        "-S -W -n dev.pocketvl.demo/.BenchActivity",
        "--es bundle pocketvl-",
        "--es variants tflite-fp32",
        "--es threads 1,2",
        "--ei runs 3 --ei warmup_runs 1",
    ):
        assert words in started
    assert "duration_s" not in started


def test_androids_own_word_on_heat_is_taken(start_phone: StartPhone) -> None:
    start_phone(commands=commands(finishing(), thermal=3))
    with AdbApp(BUNDLE, SERIAL) as device:
        conditions = device.bench(REQUEST).conditions
    assert conditions is not None
    assert conditions.throttled is True
    assert "thermal status was 3" in conditions.warnings[0]


def test_a_phone_without_the_app_says_how_to_get_it(start_phone: StartPhone) -> None:
    start_phone(commands=commands(packages=""))
    assert "install pocketvl-demo.apk" in message()


def test_a_refusal_of_the_app_is_told(start_phone: StartPhone) -> None:
    refusal = '{"error": "The screen is off or locked: unlock the phone and start again."}'
    phone = start_phone(commands=commands(f"echo '{refusal}' > $out.progress; sleep 60"))
    assert message().endswith("The screen is off or locked: unlock the phone and start again.")
    assert left_on(phone) == ""


def test_an_app_that_dies_half_way_is_told(start_phone: StartPhone) -> None:
    phone = start_phone(commands=commands("""echo '{"done": 1, "count": 8}' > $out.progress; sleep 1"""))
    assert "ended half-way" in message()
    assert left_on(phone) == ""


def test_an_app_that_takes_too_long_is_ended(start_phone: StartPhone) -> None:
    phone = start_phone(
        commands=commands("""echo '{"done": 1, "count": 8}' > $out.progress; exec sleep 4321""")
    )
    assert "took longer than 3 s" in message(BenchRequest(("tflite-fp32",), (1,), 3, timeout_s=3))
    assert left_on(phone) == ""
    assert "4321" not in phone.adb("shell", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_an_activity_that_does_not_start_is_told(start_phone: StartPhone) -> None:
    phone = start_phone(
        commands=commands(
            started="Error type 3\nError: Activity class {dev.pocketvl.demo/.BenchActivity} does not exist."
        )
    )
    assert "did not start dev.pocketvl.demo's bench: Error: Activity class" in message()
    assert left_on(phone) == ""


def test_a_phone_without_room_is_told(start_phone: StartPhone) -> None:
    phone = start_phone(size="40k", commands=commands())
    assert "has no room for" in message()
    assert left_on(phone) == ""
