"""A program on a phone, by the real adb and the real adbd."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketvl.cli import cli
from pocketvl.devices.adb import AdbBinary
from pocketvl.devices.adb_shell import AdbShell
from pocketvl.devices.base import BenchRequest
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.errors import BackendError
from tests.devices.conftest import StartPhone
from tests.devices.phone import SERIAL, Phone
from tests.runtime.operators import check_encoders

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "bundles"
REQUEST = BenchRequest(("tflite-fp32",), (1,), 3, timeout_s=60)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a shell script that takes the place of the program."""

    def write(text: str) -> Path:
        (tmp_path / "script").mkdir()
        path = tmp_path / "script" / "bench"
        path.write_text(f"#!/bin/sh\n{text}\n")
        return path

    return write


def left_on(phone: Phone) -> str:
    return phone.adb("shell", "ls -A /data/local/tmp").strip()


def message(program: Path, request: BenchRequest = REQUEST, bundle: Path = TOYS / "format-2.0") -> str:
    with pytest.raises(BackendError) as caught, AdbBinary(bundle, SERIAL, program) as device:
        device.bench(request)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("bundle", "stages"),
    [
        ("format-2.0", {"image", "text", "total"}),
        ("labels-2.0", {"fusion", "total"}),
        ("embed-2.0", {"image", "total"}),
    ],
)
def test_it_is_pushed_run_and_removed(
    start_phone: StartPhone, program: Path, bundle: str, stages: set[str]
) -> None:
    phone = start_phone()
    told: list[tuple[int, int]] = []
    with AdbBinary(TOYS / bundle, SERIAL, program) as device:
        abilities = device.abilities()
        assert abilities.variants == ("tflite-fp32",)
        assert abilities.usable_processors == len(os.sched_getaffinity(0))
        request = BenchRequest(abilities.variants, (1, 2), 5, 2, duration_s=1.5, samples=True, timeout_s=60)
        result = device.bench(request, lambda done, count, what: told.append((done, count)))
        alone = device.bench(REQUEST)
        assert left_on(phone).startswith("pocketvl-")
    assert left_on(phone) == ""
    variant = result.variants["tflite-fp32"]
    assert [timing.threads for timing in variant.timings] == [1, 2]
    assert all(set(timing.stages) == stages for timing in variant.timings)
    assert all(len(latency.samples or ()) == 5 for latency in variant.timings[0].stages.values())
    assert variant.engine.version == "2.16.1"
    assert variant.notes == ()  # its outputs are those of the golden pack
    assert variant.peak_memory_bytes is None
    assert [load.threads for load in result.sustained] == [2]
    assert told[-1] == (7, 7)
    only = alone.variants["tflite-fp32"]
    assert only.peak_memory_bytes is not None
    assert only.steady_memory_bytes is not None
    assert only.peak_memory_bytes >= only.steady_memory_bytes > 1e6
    (timing,) = only.timings
    assert timing.cold_start_ms is not None
    assert timing.first_ms is not None
    assert timing.cold_start_ms >= timing.first_ms


def test_operators_are_told_on_demand(start_phone: StartPhone, program: Path) -> None:
    start_phone()
    told: list[str] = []
    with AdbBinary(TOYS / "format-2.0", SERIAL, program) as device:
        assert device.tells_ops
        request = BenchRequest(("tflite-fp32",), (1, 2), 3, timeout_s=60, ops=True)
        result = device.bench(request, lambda done, count, what: told.append(what))
    graphs = result.variants["tflite-fp32"].graphs
    check_encoders(graphs)
    assert [(op.type, op.unit) for op in graphs[0].ops] == [
        ("CAST", "builtin"),
        ("Copy (NC, X32)", "xnnpack"),
        ("Fully Connected (NC, F32) GEMM", "xnnpack"),
        ("L2_NORMALIZATION", "builtin"),
    ]
    assert [peak.threads for peak in result.peaks] == [1, 2]
    assert all(set(peak.gmacs_per_s) == {"tflite-fp32", "tflite-int8"} for peak in result.peaks)
    assert "timing operators" in told[-1]


def test_it_is_explained(start_phone: StartPhone, program: Path, tmp_path: Path) -> None:
    start_phone()
    bundle = shutil.copytree(TOYS / "format-2.0", tmp_path / "bundle")
    words = ["profile", str(bundle), "--adb", SERIAL, "--binary", str(program), "--runs", "3", "--explain"]
    run = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    assert "tflite-fp32 image_encoder" in run.output
    assert "machine's peak: fp32" in run.output
    assert "kernels  norms and reductions" in run.output
    (profile,) = (bundle / "profiles").iterdir()
    assert BenchResult.from_json(profile.read_bytes(), profile.name).peaks


def test_outputs_that_are_not_torchs_are_told(start_phone: StartPhone, program: Path, tmp_path: Path) -> None:
    start_phone()
    bundle = Path(shutil.copytree(TOYS / "format-2.0", tmp_path / "bundle"))
    golden = json.loads((bundle / "golden/golden.json").read_text())
    for port in golden["outputs"].values():
        port[0]["values"] = [-value for value in port[0]["values"]]
    (bundle / "golden/golden.json").write_text(json.dumps(golden))
    _seal_again(bundle)
    with AdbBinary(bundle, SERIAL, program) as device:
        notes = device.bench(REQUEST).variants["tflite-fp32"].notes
    assert len(notes) == 2
    assert all("is wrong on this device" in note for note in notes)


def _seal_again(bundle: Path) -> None:
    import hashlib

    manifest = json.loads((bundle / "manifest.json").read_text())
    content = (bundle / "golden/golden.json").read_bytes()
    manifest["files"]["golden/golden.json"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    del manifest["manifest_sha256"]
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_what_the_program_says_is_told(start_phone: StartPhone, program: Path) -> None:
    phone = start_phone()
    assert "the bundle has no variant tflite-int8 that TFLite runs" in message(
        program, BenchRequest(("tflite-int8",), (1,), 3, timeout_s=60)
    )
    assert left_on(phone) == ""


def test_a_program_without_its_library_says_so(
    start_phone: StartPhone, program: Path, tmp_path: Path
) -> None:
    start_phone()
    (tmp_path / "alone").mkdir()
    alone = Path(shutil.copy(program, tmp_path / "alone"))
    assert "no TFLite library for this program" in message(alone)


def test_a_phone_without_room_says_so_and_keeps_nothing(
    start_phone: StartPhone, script: Callable[[str], Path]
) -> None:
    phone = start_phone(size="16k")
    assert "has no room for" in message(script("exit 0"))
    assert left_on(phone) == ""


def test_a_program_that_takes_too_long_is_ended(
    start_phone: StartPhone, script: Callable[[str], Path]
) -> None:
    phone = start_phone()
    said = message(script("exec sleep 4321"), BenchRequest(("tflite-fp32",), (1,), 3, timeout_s=1))
    assert "took longer than 1 s" in said
    assert left_on(phone) == ""
    assert "4321" not in phone.adb("shell", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_a_phone_that_vanishes_while_timing_is_told(
    start_phone: StartPhone, script: Callable[[str], Path]
) -> None:
    phone = start_phone()
    threading.Timer(2, phone.vanish).start()
    said = message(script("exec sleep 30"))
    assert "disappeared while timing" in said or "while timing: it does not answer adb" in said


def test_a_phone_that_vanishes_while_being_copied_to_is_told(start_phone: StartPhone, tmp_path: Path) -> None:
    phone = start_phone(size="2g")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1500 << 20)
    shell = AdbShell(SERIAL)
    threading.Timer(0.3, phone.vanish).start()
    with pytest.raises(
        BackendError, match=r"disappeared while copying|while copying large: it does not answer"
    ):
        shell.push(large, "/data/local/tmp/large")


def test_a_result_that_is_none_is_told(start_phone: StartPhone, script: Callable[[str], Path]) -> None:
    start_phone()
    assert "gave no result as docs/BENCH.md has it (what it wrote is not JSON" in message(
        script("echo hello")
    )


def test_ctrl_c_leaves_nothing(
    start_phone: StartPhone, script: Callable[[str], Path], tmp_path: Path
) -> None:
    phone = start_phone()
    bundle = shutil.copytree(TOYS / "format-2.0", tmp_path / "bundle")
    start = "from pocketvl.cli import main; main()"
    command = [sys.executable, "-c", start, "profile", str(bundle), "--adb", SERIAL]
    command += ["--binary", str(script("touch started; exec sleep 4321")), "--runs", "3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while "started" not in phone.adb("shell", "ls /data/local/tmp/pocketvl-*"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: adb's client gets it too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "4321" not in phone.adb("shell", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert left_on(phone) == ""
    assert not (Path(bundle) / "profiles").exists()


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="is no program"):
        AdbBinary(TOYS / "format-2.0", SERIAL, tmp_path / "none")
