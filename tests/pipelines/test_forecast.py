"""What a compression is said to take is what it does, and follows from what its components take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from pocketvl.cli import cli
from pocketvl.compress.effort import effort_of
from pocketvl.errors import DataError
from pocketvl.families.base import Component
from pocketvl.network.ports import DType, Port, PortKind
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.forecast import forecast
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny import make_tiny_clip

RECIPE = """
[[steps]]
kind = "prune"
ratio = 0.5
rounds = 2
[steps.learn]
phases = [{ components = ["each"], steps = 3 }]
batch_size = 4

[[steps]]
kind = "learn"
[steps.learn]
phases = [{ epochs = 2 }]
batch_size = 5
losses = { hidden = 1.0 }

[[steps]]
kind = "trim-vocabulary"
"""


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, str, Path]:
    """A checkpoint, a recipe, and ten scenes."""
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 10, size=40)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return make_tiny_clip(tmp_path / "clip"), str(tmp_path / "recipe.toml"), tmp_path / "data"


def test_all_stages_are_told_in_their_order(inputs: tuple[Path, str, Path]) -> None:
    source, recipe, data = inputs
    found = forecast(source, recipe, data)
    titles = [stage.title for stage in stages_of(source, data, read_compress_recipe(recipe))]
    assert [each.title for each in found.stages if each.title != "run the teacher"] == titles
    assert [each.title for each in found.stages].index("run the teacher") == 1  # before who asks it
    trained = [each for each in found.stages if each.memory_bytes is not None]
    assert [each.details for each in trained] == [
        ("image_encoder: 3 steps of 4 (1.2 epochs)", "text_encoder: 3 steps of 4 (1.2 epochs)"),
        ("image_encoder: 3 steps of 4 (1.2 epochs)", "text_encoder: 3 steps of 4 (1.2 epochs)"),
        ("all components: 4 steps of 5 (2 epochs)",),
    ]
    assert all(each.seconds and each.seconds > 0 for each in trained)
    assert found.samples == 10
    assert found.seconds == sum(each.seconds or 0 for each in found.stages)
    assert found.memory_bytes == max(each.memory_bytes or 0 for each in trained)


def test_the_command_says_it_and_does_nothing(inputs: tuple[Path, str, Path], tmp_path: Path) -> None:
    source, recipe, data = inputs
    before = sorted(tmp_path.rglob("*"))
    words = ["compress", str(source), "--recipe", recipe, "--data", str(data), "--dry-run"]
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    assert "trim the vocabulary" in shown.stdout
    assert "10 samples; about" in shown.stdout
    told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert [each["title"] for each in told["stages"]][-1] == "trim the vocabulary"
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_place_to_write_to_nothing_is_compressed(inputs: tuple[Path, str, Path]) -> None:
    source, recipe, data = inputs
    shown = CliRunner().invoke(cli, ["compress", str(source), "--recipe", recipe, "--data", str(data)])
    assert shown.exit_code == 2
    assert "Missing option '-o' / '--out'" in shown.output


def test_inputs_that_cannot_be_used_are_named(inputs: tuple[Path, str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        forecast(inputs[0], inputs[1], tmp_path / "nothing")


def test_memory_is_that_of_weights_and_of_what_a_step_keeps() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4, bias=False))
    ports = [
        Port(name, DType.FLOAT32, (1, width), PortKind.EMBEDDING) for name, width in (("x", 8), ("y", 4))
    ]
    found = effort_of(Component("made-up", module, (ports[0],), (ports[1],), ()))
    assert found.weight_bytes == 4 * (8 * 16 + 16 + 16 * 4)
    # the input of the first linear, and what the sigmoid gives, which is the input of the second
    assert found.activation_bytes == 4 * (8 + 16)
    assert found.training_bytes(10) == 4 * found.weight_bytes + 10 * found.activation_bytes
    assert found.training_s(1, 4) > 0
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.is_grad_enabled()


class Lookup(nn.Module):
    """The mean of a few rows of a table that is much larger than they are."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200_000, 64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table(ids).mean(1)
        return found


def test_what_a_step_takes_whatever_its_batch_is_not_multiplied_by_it() -> None:
    ports = [
        Port("ids", DType.INT32, (1, 8), PortKind.TOKEN_IDS),
        Port("y", DType.FLOAT32, (1, 64), PortKind.EMBEDDING),
    ]
    found = effort_of(Component("made-up", Lookup(), (ports[0],), (ports[1],), ()))
    assert found.step_s > 10 * found.back_s
    assert found.training_s(100, 64) < 5 * found.training_s(100, 8)  # all of it would be eight times
