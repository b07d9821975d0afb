"""The training loop: resumes to the same weights, stops at NaN, refuses another training's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.errors import TrainingError
from pocketvl.train.loop import Trainer
from pocketvl.train.settings import LoopSettings

SETTINGS = LoopSettings(steps=12, learning_rate=0.05, warmup_steps=2, seed=5, save_every=4)


class StopError(Exception):
    """Stands for a kill."""


def batches(step: int) -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))


def objective(module: nn.Module, batch: torch.Tensor, step: int) -> Mapping[str, torch.Tensor]:
    noise = torch.rand(8, 1)  # out of the global random state, which must be restored too
    return {"fit": ((module(batch) - batch.sum(1, keepdim=True) - 0.01 * noise) ** 2).mean()}


def train(
    folder: Path, stop_at: int | None = None, settings: LoopSettings = SETTINGS
) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def progress(done: int, total: int, what: str) -> None:
        if done == stop_at:
            raise StopError

    trainer: Trainer[torch.Tensor] = Trainer(module, batches, objective, settings, folder)
    report = trainer.run(progress)
    return module, [row["fit"] for row in report.losses]


def test_it_learns(tmp_path: Path) -> None:
    _, losses = train(tmp_path)
    assert len(losses) == SETTINGS.steps
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("stop_at", [3, 4, 7, 11])
def test_an_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path: Path, stop_at: int) -> None:
    whole, losses = train(tmp_path / "whole")
    with pytest.raises(StopError):
        train(tmp_path / "broken", stop_at)
    resumed, resumed_losses = train(tmp_path / "broken")
    assert resumed_losses == losses
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_half_written_state_is_not_taken_for_one(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    (tmp_path / "broken" / "unfinished").mkdir(parents=True)
    (tmp_path / "broken" / "unfinished" / "losses.jsonl").write_text("{")
    resumed, _ = train(tmp_path / "broken")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        train(tmp_path, settings=LoopSettings(steps=12, learning_rate=0.01))


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    def broken(module: nn.Module, batch: torch.Tensor, step: int) -> Mapping[str, torch.Tensor]:
        return {"fit": module(batch).mean() * (float("nan") if step == 3 else 1.0)}

    trainer: Trainer[torch.Tensor] = Trainer(nn.Linear(3, 1), batches, broken, SETTINGS, tmp_path)
    with pytest.raises(TrainingError, match="diverged at step 3"):
        trainer.run()
