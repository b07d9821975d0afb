"""`kill -9` at any moment of an export, then the same command: the same bytes as undisturbed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl_runtime.manifest import Manifest
from tests.e2e.conftest import Exported

_DONE = re.compile(rb"^\[\d+/\d+\] (.*): done in", re.MULTILINE)


def done_stages(stderr: bytes) -> list[bytes]:
    """What a run says of the stages that it did itself: their titles."""
    return _DONE.findall(stderr)


@pytest.mark.slow
def test_a_killed_export_goes_on_and_ends_in_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "bundle"
    command = [
        str(Path(sys.executable).with_name("pocketvl")),
        *map(str, exported.command(out)),
        "--keep-failing",
    ]
    environment = os.environ | {"POCKETVL_CACHE": str(cache)}
    stages = len(done_stages(exported.first.stderr.encode()))
    kills, finished, sealed = 0, False, 0
    for patience in (8.0, 16.0, 24.0, 32.0, 600.0):
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, stderr = process.communicate(timeout=patience)
            finished = True
            assert process.returncode == 0, stderr.decode()
            assert len(done_stages(stderr)) < stages, "the last run did everything anew"
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, stderr = process.communicate()
            kills += 1
            sealed += len(done_stages(stderr))
            assert not out.exists() or (out / "manifest.json").is_file()
            time.sleep(0.2)
    assert finished
    assert kills >= 1
    assert sealed >= 1, "no kill came after a first result"
    assert sealed + len(done_stages(stderr)) == stages  # each stage was sealed once, and never done again
    undisturbed = Manifest.read(exported.bundle / "manifest.json")
    assert Manifest.read(out / "manifest.json").to_json() == undisturbed.to_json()
    for path in undisturbed.files:
        assert (out / path).read_bytes() == (exported.bundle / path).read_bytes(), path
