"""Two processes learn what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from pocketvl.errors import TrainingError
from pocketvl.train.contrast import contrastive_loss
from pocketvl.train.loop import Trainer
from pocketvl.train.settings import LoopSettings
from pocketvl.train.phases import Components

work, steps, batch, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def batches(step):
    chance = np.random.default_rng(step)
    drawn = [chance.standard_normal((rows, 6)).astype("float32") for rows in (batch, 2 * batch)]
    return tuple(torch.from_numpy(each) for each in drawn)

def objective(module, inputs, step):
    image, text = module(*inputs)
    image, text = (nn.functional.normalize(each, dim=-1) for each in (image, text))
    texts = text.view(2, *image.shape).transpose(0, 1)
    return {"contrast": contrastive_loss(image, texts, torch.tensor(5.0))}

def progress(done, total, news):
    if done == stop:
        raise SystemExit(3)

torch.manual_seed(0)
image = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5))
pair = Components({"image": image, "text": nn.Linear(6, 5)})
settings = LoopSettings(steps=steps, learning_rate=1e-2, warmup_steps=2, save_every=4)
try:
    Trainer(pair, batches, objective, settings, work).run(progress)
except TrainingError as error:
    print("refused:", error)
"""


def _run(
    root: Path, work: str, processes: int, batch: int = 8, stop: int = 0
) -> subprocess.CompletedProcess[str]:
    """`torchrun`, which is what `accelerate launch` calls for GPUs; for processors alone it wants an MPI."""
    (root / "script.py").write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
    ]
    words = [str(root / "script.py"), str(root / work), "12", str(batch), str(stop)]
    return subprocess.run([*launch, *words], capture_output=True, text=True, check=False)


def _losses(work: Path) -> list[float]:
    (state,) = work.glob("step-*")
    return [json.loads(line)["contrast"] for line in (state / "losses.jsonl").read_text().splitlines()]


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    for work, processes in (("one", 1), ("two", 2)):
        done = _run(tmp_path, work, processes)
        assert done.returncode == 0, done.stderr
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == 12
    assert two == pytest.approx(one, abs=1e-4)
    assert one[-1] < one[0]


def test_two_processes_that_were_stopped_go_on(tmp_path: Path) -> None:
    stopped = _run(tmp_path, "broken", 2, stop=7)
    assert stopped.returncode != 0
    assert len(_losses(tmp_path / "broken")) == 4
    again = _run(tmp_path, "broken", 2)
    assert again.returncode == 0, again.stderr
    assert _run(tmp_path, "whole", 2).returncode == 0
    assert _losses(tmp_path / "broken") == _losses(tmp_path / "whole")


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "odd", 2, batch=9)
    assert "2 processes cannot share 9 samples evenly" in done.stdout
