"""`kill -9` in the middle of a compression, then the same command: the same bytes as undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl.families import open_checkpoint
from tests.e2e.conftest import Exported

RECIPE = """
[[steps]]
kind = "reinitialize"
[steps.shapes]
image_encoder = { width = 24, layers = 1, heads = 2 }
text_encoder = { width = 16, layers = 1, heads = 2, neurons = 20 }
[steps.learn]
phases = [{ components = ["image_encoder"], steps = 60 }, { steps = 40 }]
batch_size = 16
save_every = 5
losses = { contrast = 1.0 }

[[steps]]
kind = "qat"
precision = "int8"
training.phases = [{ components = ["image_encoder"], steps = 20 }, { steps = 10 }]
training.batch_size = 16
training.save_every = 5
"""

_PATIENCE = 600.0  # seconds, after which a run counts as hanging


@pytest.mark.slow
def test_a_killed_compression_goes_on_and_ends_in_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    undisturbed, out, cache = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "cache"
    whole = _start(exported, tmp_path, undisturbed, tmp_path / "other cache")
    _, stderr = whole.communicate(timeout=_PATIENCE)
    assert whole.returncode == 0, stderr.decode()

    # each in a phase of its own, after a state of it was saved and before its last
    for phase, last in (
        ("states/1-image_encoder", 60),
        ("states/2-image_encoder+text_encoder", 40),
        ("states/1-image_encoder", 20),
    ):
        process = _start(exported, tmp_path, out, cache)
        _kill_after_state(process, cache, phase, last)
        assert not out.exists()
    process = _start(exported, tmp_path, out, cache)
    _, stderr = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, stderr.decode()

    assert {path.name for path in out.iterdir()} == {path.name for path in undisturbed.iterdir()}
    for path in out.iterdir():
        assert path.read_bytes() == (undisturbed / path.name).read_bytes(), path.name
    steps = [each["step"] for each in json.loads((out / "compress.json").read_text())["steps"]]
    assert steps == ["initialize a smaller model at random", "distil from the teacher", "train for int8"]
    checkpoint = open_checkpoint(out)
    assert checkpoint.stacks["image_encoder"].width == 24
    assert checkpoint.model.get_parameter("text_model.encoder.layers.0.mlp.fc1.weight").shape == (20, 16)


def _start(exported: Exported, root: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = (
        Path(sys.executable).with_name("pocketvl"), "compress", exported.checkpoint,
        "--recipe", root / "recipe.toml", "--data", exported.data, "-o", out,
    )  # fmt: skip
    return subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"POCKETVL_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _kill_after_state(process: subprocess.Popen[bytes], cache: Path, phase: str, last: int) -> None:
    """Kills a run once a training that it does has saved a state of a phase, and before it saves the last."""
    known = _states(cache, phase)
    patience = time.monotonic() + _PATIENCE
    while not _states(cache, phase) - known:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < patience, f"no state of {phase}"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it had ended by itself"
    left = {path.name for path in _states(cache, phase) - known}
    assert left, f"{phase} was over before the kill"
    assert max(left) < f"step-{last:08d}", f"{phase} had its last state before the kill"


def _states(cache: Path, phase: str) -> set[Path]:
    """The saved states of a phase; found without a look inside, for they go while one looks."""
    return set(cache.glob(f"*/*.work/{phase}/step-*"))
