"""`kill -9` in the middle of stages of an export, then the same command: the same bytes as undisturbed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pocketvl_runtime.manifest import Manifest
from tests.e2e.conftest import Exported

_DONE = re.compile(r"^\[\d+/\d+\] (.*): done in", re.MULTILINE)
_PATIENCE = 600.0  # seconds, after which a run counts as hanging
KILLED_IN = ("lower image_encoder to onnx", "lower text_encoder to tflite", "judge and report")


def done_stages(stderr: str) -> list[str]:
    """What a run says of the stages that it did itself: their titles."""
    return _DONE.findall(stderr)


@pytest.mark.slow
def test_a_killed_export_goes_on_and_ends_in_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "bundle"
    stages = done_stages(exported.first.stderr)
    sealed: list[str] = []
    for title in KILLED_IN:
        stderr = _kill_in(_start(exported, out, cache), cache, title)
        assert title not in done_stages(stderr)
        sealed += done_stages(stderr)
        assert not out.exists() or (out / "manifest.json").is_file()
    last = _start(exported, out, cache)
    _, stderr = last.communicate(timeout=_PATIENCE)
    assert last.returncode == 0, stderr
    sealed += done_stages(stderr)
    assert sorted(sealed) == sorted(stages)  # each was sealed once, and never done again
    assert _drafts(cache) == []  # what the killed ones left is gone
    undisturbed = Manifest.read(exported.bundle / "manifest.json")
    assert Manifest.read(out / "manifest.json").to_json() == undisturbed.to_json()
    for path in undisturbed.files:
        assert (out / path).read_bytes() == (exported.bundle / path).read_bytes(), path


def _start(exported: Exported, out: Path, cache: Path) -> subprocess.Popen[str]:
    command = [Path(sys.executable).with_name("pocketvl"), *exported.command(out), "--keep-failing"]
    return subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"POCKETVL_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _kill_in(process: subprocess.Popen[str], cache: Path, title: str) -> str:
    """Kills a run while it does a stage: once it has said so and has a draft, and before it seals that.

    Returns:
        What the run wrote to stderr.
    """
    assert process.stderr is not None
    alarm = threading.Timer(_PATIENCE, process.kill)
    alarm.start()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.endswith(f"] {title} ...\n"):
            break
    else:
        raise AssertionError(f"the run never began to {title}: {''.join(lines)}")
    while not _drafts(cache):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    alarm.cancel()
    lines.append(process.stderr.read())
    assert process.wait() == -signal.SIGKILL, "it had ended by itself"
    assert len(_drafts(cache)) == 1, f"no half-written result is left of: {title}"
    return "".join(lines)


def _drafts(cache: Path) -> list[Path]:
    """Results that are being written, or were when their process died; one that is sealed is none."""
    return list(cache.glob("*/.tmp-*/result"))
