"""A command that is asked to end does so with one line, and nothing temporary is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Exported

SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class Running:
    """A command in a session of its own, with a temporary folder of its own."""

    def __init__(self, words: list[object], cache: Path, scratch: Path) -> None:
        self.scratch, self.cache = scratch, cache
        scratch.mkdir(exist_ok=True)
        self._log = scratch.with_name(scratch.name + ".log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("pocketvl")), *map(str, words)],
                env=os.environ | {"POCKETVL_CACHE": str(cache), "TMPDIR": str(scratch)},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def wait_for(self, stage: str) -> None:
        """Waits until a stage has begun."""
        deadline = time.monotonic() + 300
        while f"{stage} ..." not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def end(self, number: signal.Signals, *, all_processes: bool = False) -> None:
        """Asks it to end, and checks how it did."""
        (os.killpg if all_processes else os.kill)(self._process.pid, number)
        assert self._process.wait(120) == 128 + number
        told = self._log.read_text().splitlines()
        assert told[-1] == f"error: {SAID[number]}"
        assert [line for line in told if "Traceback" in line or "Exception" in line] == []
        assert list(self.scratch.iterdir()) == []
        assert list(self.cache.rglob(".tmp-*")) == []
        deadline = time.monotonic() + 20
        while self._is_anybody_left():
            assert time.monotonic() < deadline, "a process outlives the command"
            time.sleep(0.05)

    def _is_anybody_left(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.mark.slow
def test_an_export_ends_at_any_moment_and_goes_on_afterwards(exported: Exported, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "bundle"
    words = [*exported.command(out), "--keep-failing", "--variants", "onnx-fp32,onnx-int8,tflite-fp32"]
    moments = (
        ("prepare image_encoder", 0.0, signal.SIGTERM),  # torch is being imported
        ("calibrate image_encoder", 0.2, signal.SIGHUP),
        ("lower image_encoder to onnx", 2.0, signal.SIGINT),
        ("lower image_encoder to tflite", 2.0, signal.SIGTERM),
        ("measure latency and memory", 1.0, signal.SIGTERM),  # in a process of its own
    )
    for stage, seconds, number in moments:
        running = Running(words, cache, tmp_path / "scratch")
        running.wait_for(stage)
        time.sleep(seconds)
        running.end(number)
        assert not out.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "scratch", "scratch.log"]


@pytest.mark.slow
@pytest.mark.parametrize("all_processes", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_help_end_too_and_say_nothing(
    tmp_path: Path, number: signal.Signals, all_processes: bool
) -> None:
    words = ["data", "tabletop", "--seed", 3, "--count", 20_000, "-o", tmp_path / "out"]
    running = Running(words, tmp_path / "cache", tmp_path / "scratch")
    running.wait_for("paint 20000 scenes")
    time.sleep(0.5 if all_processes else 4.0)  # while they start, while they work
    running.end(number, all_processes=all_processes)
    assert not (tmp_path / "out").exists()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = (
        "import click, os, signal\n"
        "from pocketvl_runtime.console import run_command\n"
        "@click.command()\n"
        "def command():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    click.echo('here still')\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "run_command(command, 'it')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "here still\n", "")
