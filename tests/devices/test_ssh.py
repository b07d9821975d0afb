"""A board behind ssh: a real sshd on the loopback, the system's ssh, keys, a Python that may be emulated."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pocketvl import api
from pocketvl.devices import profiling
from pocketvl.devices.base import BenchRequest
from pocketvl.devices.ssh import SshDevice
from pocketvl.devices.ssh_connection import SshTarget
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.errors import BackendError, InputError, PocketVLError
from tests.devices.sshd import MISSING, Board, board, children, know_host, process_name
from tests.runtime import bundles

PYTHON = sys.executable
COMMAND = "from pocketvl.cli import main; main()"
EMULATED = Path(__file__).parents[2] / "build" / "pi" / "venv" / "bin" / "python"
SHORT = BenchRequest(("onnx-fp32",), (1,), runs=2)
ENDLESS = BenchRequest(("onnx-fp32",), (1,), runs=2, duration_s=600)
MUCH = 24 << 20

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")
Told = list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a file that takes a while to copy."""
    root = bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "large")
    (root / "graphs" / "padding.bin").write_bytes(os.urandom(MUCH))
    bundles.reseal(root)
    return root


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with board(tmp_path / "board") as server:
        use(server, monkeypatch)
        yield server


def use(server: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `ssh` know the server's keys."""
    monkeypatch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")


def refused(device: SshDevice, work: Callable[[SshDevice], object] = lambda device: None) -> str:
    """The one line that says why it did not work."""
    with pytest.raises(BackendError) as caught, device:
        work(device)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    return line


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_bundle_is_timed_and_nothing_is_left(tiny: Path, served: Board) -> None:
    with SshDevice(tiny, served.target, PYTHON) as device:
        assert device.name == "127.0.0.1"
        able = device.abilities()
        assert able.variants == bundles.VARIANTS
        told: Told = []
        result = device.bench(BenchRequest(able.variants, (1, 2), 3), lambda *news: told.append(news))
        assert device.selftest()["failures"] == []
        assert served.left()
    assert result.variants.keys() == set(bundles.VARIANTS)
    assert [timing.threads for timing in result.variants["tflite-fp32"].timings] == [1, 2]
    assert result.settings.runs == 3
    assert told[-1][0] == told[-1][1] > 1
    assert served.left() == []
    assert list(served.cache.iterdir()) == []
    assert served.running() == []


def test_a_name_of_the_users_configuration_is_one(tiny: Path, served: Board) -> None:
    with SshDevice(tiny, f"{getpass.getuser()}@board", PYTHON) as device:
        assert device.name == "board"
        assert device.bench(SHORT).variants.keys() == {"onnx-fp32"}


def test_what_a_login_prints_does_not_disturb(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting = 'ForceCommand echo "{}"; echo Welcome; echo pocket >&2; eval "$SSH_ORIGINAL_COMMAND"'
    with board(tmp_path / "board", more=greeting) as server:
        use(server, monkeypatch)
        with SshDevice(tiny, server.target, PYTHON) as device:
            assert device.abilities().variants == bundles.VARIANTS


@pytest.mark.slow
def test_an_environment_is_made_there_and_made_once(tiny: Path, served: Board) -> None:
    """pip takes the engines from the package index."""
    first = SshDevice(tiny, served.target, keep=True)
    told: Told = []
    first.progress = lambda *news: told.append(news)
    with first as device:
        assert device.bench(SHORT).tool.name == "pocketvl-runtime"
    assert any("environment" in what for _, _, what in told)
    assert any(name.endswith("onnxruntime/__init__.py") for name in served.left())
    again = SshDevice(tiny, served.target)
    told.clear()
    again.progress = lambda *news: told.append(news)
    with again as device:
        device.bench(SHORT)
    assert not any("environment" in what or "copying" in what for _, _, what in told)
    assert served.left() == []


@pytest.mark.slow
def test_an_emulated_raspberry_pi_is_marked_as_one(
    tiny: Path, served: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    if not EMULATED.exists():
        pytest.skip("no emulated Raspberry Pi: make pi-test")
    with SshDevice(tiny, served.target, str(EMULATED)) as device:
        able = device.abilities()
        result = device.bench(BenchRequest(able.variants, (1,), 2))
        report = device.selftest()
    assert (result.machine.architecture, result.machine.emulated) == ("aarch64", True)
    assert result.machine.isa == "neon+dotprod"
    assert report["failures"] == []
    assert tuple(report["variants"]) == able.variants == bundles.VARIANTS
    assert served.left() == []


def test_a_wrong_key_is_refused(tiny: Path, served: Board) -> None:
    (served.root / "authorized_keys").write_text((served.root / "host_key.pub").read_text())
    line = refused(SshDevice(tiny, served.target, PYTHON))
    assert f"{served.target.rpartition(':')[0]} refuses the login" in line
    assert f"ssh -p {served.port}" in line


def test_a_port_where_nobody_listens(tiny: Path, served: Board) -> None:
    line = refused(SshDevice(tiny, "127.0.0.1:1", PYTHON))
    assert line.startswith("127.0.0.1 cannot be reached: ")
    assert "Connection refused" in line


def test_a_host_that_is_not_known_by_name(tiny: Path, served: Board) -> None:
    assert "cannot be reached" in refused(SshDevice(tiny, "nobody.invalid", PYTHON))


def test_a_host_whose_key_is_not_known(tiny: Path, served: Board) -> None:
    (served.root / "known_hosts").unlink()
    assert "is not among the known hosts: connect once by hand" in refused(
        SshDevice(tiny, served.target, PYTHON)
    )
    assert not (served.root / "known_hosts").exists()


def test_a_host_whose_key_has_changed(tiny: Path, served: Board) -> None:
    know_host(served.root, served.port, "key.pub")
    assert "the host key of" in (line := refused(SshDevice(tiny, served.target, PYTHON)))
    assert "has changed" in line


@pytest.mark.parametrize("python", ["/nowhere/python3", "python-that-is-not-there"])
def test_a_python_that_is_not_there(python: str, tiny: Path, served: Board) -> None:
    assert f"has no {python}: install it there" in refused(SshDevice(tiny, served.target, python))


def test_a_python_that_is_too_old(tiny: Path, served: Board) -> None:
    old = served.root / "python3"
    old.write_text(f'#!/bin/sh\nexec {PYTHON} -c "import sys; sys.version_info = (3, 9); $2"\n')
    old.chmod(0o755)
    text = old.read_text().replace("$2", "exec(sys.argv[1])").replace('"\n', '" "$2"\n')
    old.write_text(text)
    assert "pocketvl needs 3.11 or newer" in refused(SshDevice(tiny, served.target, str(old)))


def test_a_python_without_numpy(tiny: Path, served: Board) -> None:
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", served.root / "bare"], check=True)
    bare = str(served.root / "bare" / "bin" / "python")
    line = refused(SshDevice(tiny, served.target, bare))
    assert f"{bare} on " in line
    assert "has no numpy, PIL, tokenizers, click, ai_edge_litert or onnxruntime: install it there" in line
    assert served.left() == []


def test_a_device_without_a_way_to_a_package_index(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(PYTHON).parent
    env = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={tmp_path} PIP_CONFIG_FILE=/dev/null"
    with board(tmp_path / "board", path=(here,), env=env) as server:
        use(server, monkeypatch)
        line = refused(SshDevice(tiny, server.target))
        assert "pip cannot install the runtime on" in line
        assert "--python" in line
        assert server.left() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a few megabytes wants root")
def test_a_full_disk(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with board(tmp_path / "board", tmpfs="size=4m") as server:
        use(server, monkeypatch)
        line = refused(SshDevice(large, server.target, PYTHON))
        assert "No space left on device" in line
        inside = Path("/proc") / str(server.process.pid) / "root" / str(server.cache).lstrip("/")
        assert list(inside.iterdir()) == []


def test_a_copy_that_is_cut_goes_on_where_it_was(large: Path, served: Board) -> None:
    device = SshDevice(large, served.target, PYTHON)

    def cut(done: int, total: int, what: str) -> None:
        if done > MUCH // 2:
            served.cut()

    device.progress = cut
    line = refused(device)
    assert "broke" in line
    assert f"what was copied stays there in {served.cache}/pocketvl-device" in line
    wait_until(lambda: served.running() == [])
    (part,) = (name for name in served.left() if name.endswith(".part"))
    there = sum((served.cache / name).stat().st_size for name in served.left())
    assert (served.cache / part).stat().st_size > MUCH // 8
    again, told = SshDevice(large, served.target, PYTHON), []
    again.progress = lambda *news: told.append(news)
    with again:
        pass
    copied = [done for done, _, what in told if what.startswith("copying")]
    assert copied[0] >= there > 0  # it began with what was there
    assert served.left() == []


def test_a_file_that_was_left_by_another_bundle_is_sent_anew(large: Path, served: Board) -> None:
    part = served.cache / "pocketvl-device" / "bundle" / "graphs" / "padding.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with SshDevice(large, served.target, PYTHON) as device:
        assert device.selftest()["failures"] == []


def test_a_bench_that_is_cut_gives_one_line_and_ends_there_too(tiny: Path, served: Board) -> None:
    def bench(device: SshDevice) -> None:
        device.bench(ENDLESS, lambda *news: served.cut())

    assert "broke" in refused(SshDevice(tiny, served.target, PYTHON), bench)
    wait_until(lambda: served.running() == [])
    with SshDevice(tiny, served.target, PYTHON):  # the folder is not locked by anybody
        pass
    assert served.left() == []


def test_a_bench_that_takes_too_long_is_ended(tiny: Path, served: Board) -> None:
    request = BenchRequest(("onnx-fp32",), (1,), 2, duration_s=600, timeout_s=6)
    line = refused(SshDevice(tiny, served.target, PYTHON), lambda device: device.bench(request))
    assert "took longer than 6 s and was ended" in line
    assert served.running() == []
    assert served.left() == []


def test_a_bench_that_fails_says_why(tiny: Path, served: Board) -> None:
    request = BenchRequest(("onnx-fp64",), (1,), 2)
    line = refused(SshDevice(tiny, served.target, PYTHON), lambda device: device.bench(request))
    assert line.startswith("the bench of onnx-fp64 on ")
    assert served.left() == []


def change_worker(served: Board, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Lets devices get a worker with another constant."""
    from pocketvl.devices import ssh_worker

    changed, text = served.root / "ssh_worker.py", Path(ssh_worker.__file__).read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    monkeypatch.setattr(ssh_worker, "__file__", str(changed))


@pytest.mark.slow
def test_a_host_that_falls_silent_leaves_nothing_running(
    tiny: Path, served: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is gone closes no connection: here, ssh is stopped in mid-bench."""
    change_worker(served, monkeypatch, "_SILENCE_S = 60.0", "_SILENCE_S = 8.0")
    stopped: list[int] = []

    def stop(*news: object) -> None:
        if not stopped:
            stopped.extend(pid for pid in children(os.getpid()) if process_name(pid) == "ssh")
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    device = SshDevice(tiny, served.target, PYTHON)
    with ThreadPoolExecutor(1) as beside:
        line = beside.submit(refused, device, lambda device: device.bench(ENDLESS, stop))
        try:
            wait_until(lambda: bool(stopped), 60)
            wait_until(lambda: served.running() == [], 60)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    assert "broke" in line.result()


def test_two_at_once_do_not_share_a_device(
    tiny: Path, served: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_worker(served, monkeypatch, "_LOCK_S = 90.0", "_LOCK_S = 0.5")
    with SshDevice(tiny, served.target, PYTHON) as first:
        assert "another `pocketvl profile` measures there" in refused(SshDevice(tiny, served.target, PYTHON))
        assert first.bench(SHORT).variants


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_profile_leaves_nothing(
    number: signal.Signals, status: int, tiny: Path, served: Board, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-c", COMMAND, "profile", str(tiny), "--ssh", served.target]
    command += [
        "--python",
        PYTHON,
        "--variant",
        "onnx-fp32",
        "--threads",
        "1",
        "--duration",
        "600",
        "-o",
        str(out),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(" bench bundle" in line for line in served.running()), 60)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert not out.exists()
    assert not (tiny / "profiles").exists()
    wait_until(lambda: served.running() == [])
    assert served.left() == []


def test_the_command_profiles_a_board(tiny: Path, served: Board, tmp_path: Path) -> None:
    out = tmp_path / "board.json"
    command = [sys.executable, "-c", COMMAND, "profile", str(tiny), "--ssh", served.target]
    command += ["--python", PYTHON, "--runs", "3", "--threads", "1", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = BenchResult.from_json(out.read_text(), "the profile")
    assert set(result.variants) == set(bundles.VARIANTS)
    assert all(variant.peak_memory_bytes for variant in result.variants.values())
    assert served.left() == []


def test_a_board_tells_of_its_operators_and_is_explained(tiny: Path, served: Board) -> None:
    variants = ("onnx-fp32", "tflite-fp32")
    result = profile(SshDevice(tiny, served.target, PYTHON), variants)
    assert {graph.component for name in variants for graph in result.variants[name].graphs} == {
        "image_encoder",
        "text_encoder",
    }
    assert [peak.threads for peak in result.peaks] == [1]
    assert set(result.variants) == {each.name for each in api.explain(tiny, result).variants}
    assert served.left() == []


def profile(device: SshDevice, variants: tuple[str, ...]) -> BenchResult:
    with device as entered:
        return profiling.profile(entered, profiling.ProfileSettings(variants, (1,), 1, starts=1, ops=True))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("pi", SshTarget("pi")),
        ("pi@pi5.local", SshTarget("pi5.local", "pi")),
        ("pi@pi5.local:2222", SshTarget("pi5.local", "pi", 2222)),
        ("pi@192.0.2.7:22", SshTarget("192.0.2.7", "pi", 22)),
        ("[2001:db8::7]:22", SshTarget("2001:db8::7", None, 22)),
        ("pi@2001:db8::7", SshTarget("2001:db8::7", "pi")),
        ("a@b@host", SshTarget("host", "a@b")),
    ],
)
def test_targets(text: str, target: SshTarget) -> None:
    assert SshTarget.parse(text) == target


@pytest.mark.parametrize(
    "text",
    ["", "@pi", "pi@", "-oProxyCommand=x", "pi@-x", "-l@pi", "pi:0", "pi:99999", "pi:x", "a b", "pi@a b"],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(InputError, match="is no user@host"):
        SshTarget.parse(text)


def test_a_missing_bundle_is_told_before_anything_is_reached(tmp_path: Path, served: Board) -> None:
    with (
        pytest.raises(PocketVLError, match=shlex.quote(str(tmp_path / "none"))),
        SshDevice(tmp_path / "none", "127.0.0.1:1", PYTHON),
    ):
        pass
