"""Two processes of one launch compress and train together, and learn what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvl.families import open_checkpoint
from tests.e2e.conftest import Exported, pocketvl

COMPRESSION = """
[[steps]]
kind = "reinitialize"

[steps.shapes]
image_encoder = { width = 24, layers = 1, heads = 2 }
text_encoder = { width = 16, layers = 1, heads = 2 }

# projections that the third phase does not train, and embeddings that only the last one does
[steps.learn]
batch_size = 16
losses = { embedding = 0.0, hidden = 1.0, contrast = 1.0 }
phases = [
    { components = ["image_encoder"], steps = 4 },
    { components = ["text_encoder"], steps = 4 },
    { steps = 4, losses = { embedding = 0.0 } },
    { steps = 4 },
]

[[steps]]
kind = "prune"
ratio = 0.5
score = "gate"

[[steps]]
kind = "qat"
training = { phases = [{ components = ["image_encoder"], steps = 4 }, { steps = 4 }], batch_size = 16 }

[[steps]]
kind = "sparsify"
sparsity = 0.5
learn = { phases = [{ steps = 4 }], batch_size = 16 }
"""
TRAINING = """
[model]
kind = "dual-encoder"
image_size = 32
text_length = 32
vocab_size = 400
embedding_dim = 16
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
image = { patch_size = 4, channels = [16, 32], depths = [1, 1] }
text = { width = 32, layers = 1, heads = 2 }

[scenes]
seed = 1
count = 40
paint_size = 32

"""
PHASE = """
[{name}]
batch_size = 16
negatives = 3
loop = {{ steps = {steps}, learning_rate = 1e-3 }}
"""
PHASES = {"oracle": 4, "text": 4, "image": 4, "joint": 6}


def _together(*words: object, cache: Path) -> subprocess.CompletedProcess[str]:
    """The command in two processes; `torchrun` is what `accelerate launch` calls for GPUs."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(Path(sys.executable).with_name("pocketvl")), *map(str, words)]
    environment = os.environ | {"POCKETVL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def _ends(checkpoint: Path) -> list[float]:
    """The last losses of all phases."""
    steps = json.loads((checkpoint / "compress.json").read_text())["steps"]
    return [loss for step in steps for phase in step.get("losses", {}).values() for loss in phase.values()]


@pytest.mark.slow
def test_two_processes_compress_to_what_one_does(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(COMPRESSION)
    words = ["compress", exported.checkpoint, "--recipe", tmp_path / "recipe.toml", "--data", exported.data]
    one = pocketvl(*words, "-o", tmp_path / "one", cache=tmp_path / "cache")
    two = _together(*words, "-o", tmp_path / "two", cache=tmp_path / "cache")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr

    assert two.stdout == one.stdout.replace(str(tmp_path / "one"), str(tmp_path / "two"))  # once, not twice
    assert two.stderr.count("distil from the teacher: done") == 2  # of two steps
    assert "run the teacher" not in two.stderr  # that one process has done, too
    ends = _ends(tmp_path / "one")
    assert len(ends) > 10
    found = _ends(tmp_path / "two")
    assert found[:8] == pytest.approx(ends[:8], abs=1e-4)
    # sums in another order round a weight to another step, and quantization-aware training goes on from that
    assert found == pytest.approx(ends, abs=2e-3)
    weights = [open_checkpoint(tmp_path / name).model.state_dict() for name in ("one", "two")]
    for name, values in weights[0].items():
        assert (values - weights[1][name]).abs().max() < 1e-2, name


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        TRAINING + "".join(PHASE.format(name=name, steps=steps) for name, steps in PHASES.items())
    )
    done = _together("train", tmp_path / "recipe.toml", "-o", tmp_path / "model", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'model'}\n"
    assert done.stderr.count("6/6 joint") == 1
    open_checkpoint(tmp_path / "model")
    losses = (tmp_path / "model.work/joint").glob("step-*/losses.jsonl")
    assert len(next(losses).read_text().splitlines()) == 6
