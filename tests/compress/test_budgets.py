"""Which units go: within layers or among all, by ratio or to a target; and what a model costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.compress.costs import Cost, cost_of, linear_cost, positions
from pocketvl.compress.settings import Measure, Schedule, Scope, Score, Units
from pocketvl.compress.structured import Group, groups_of, prune_units_, select_by_ratio, select_to_target
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.blocks import FeedForward
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH

EXAMPLES = {
    "image_encoder": torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8),
    "text_encoder": torch.full((1, TEXT_LENGTH), 381, dtype=torch.int32),
}
BOTH = (Units.NEURONS, Units.HEADS)


def _group(*scores: float, saves: int = 1, original: int | None = None) -> Group:
    block = FeedForward("up", "down")
    return Group(
        block, torch.tensor(scores, dtype=torch.float64), Cost(saves, saves, saves), original or len(scores)
    )


def _groups(checkpoint: Checkpoint, units: tuple[Units, ...] = BOTH) -> dict[str, tuple[Group, ...]]:
    found = {}
    for role, example in EXAMPLES.items():
        component = checkpoint.component(role).module
        rows = positions(component, example)
        found[role] = groups_of(component, checkpoint.original(), units, Score.MAGNITUDE, rows)
    return found


def _cost(checkpoint: Checkpoint) -> Cost:
    return sum(
        (cost_of(checkpoint.component(role).module, example) for role, example in EXAMPLES.items()), Cost()
    )


def test_a_layer_loses_its_least_and_keeps_one() -> None:
    groups = (_group(3, 1, 2, 4), _group(0.1, 0.3, 0.2, 0.4))
    assert select_by_ratio(groups, 0.5, Scope.LAYER) == [[0, 3], [1, 3]]
    assert select_by_ratio(groups, 0.99, Scope.LAYER) == [[3], [3]]
    assert select_by_ratio(groups, 0.0, Scope.LAYER) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_what_has_gone_before_counts() -> None:
    assert select_by_ratio([_group(3, 1, 2, 4, original=8)], 0.5, Scope.LAYER) == [[0, 1, 2, 3]]
    assert select_by_ratio([_group(3, 1, 2, 4, original=8)], 0.75, Scope.LAYER) == [[0, 3]]


def test_among_all_layers_the_one_with_many_idle_units_loses_more() -> None:
    busy, idle = _group(10, 11, 9, 10), _group(8, 0.1, 0.1, 0.1)
    assert select_by_ratio([busy, idle], 3 / 8, Scope.GLOBAL) == [[0, 1, 2, 3], [0]]
    assert [len(kept) for kept in select_by_ratio([busy, idle], 7 / 8, Scope.GLOBAL)] == [
        1,
        1,
    ]  # one a layer stays


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_ratios_that_cannot_be(ratio: float) -> None:
    with pytest.raises(RecipeError, match="ratio must be"):
        select_by_ratio([_group(1, 2)], ratio, Scope.LAYER)


def test_of_equal_scores_the_dearer_units_go_first() -> None:
    cheap, dear = _group(1, 1, 1), _group(1, 1, 1, saves=10)
    assert [len(kept) for kept in select_to_target([cheap, dear], Cost(33, 33, 33), Measure.MACS, 20)] == [
        3,
        1,
    ]


def test_a_target_that_cannot_be_reached_says_how_far_it_goes() -> None:
    with pytest.raises(RecipeError, match=r"parameters = 2 cannot be reached: .* it is 7"):
        select_to_target([_group(1, 2, 3, saves=4)], Cost(15, 15, 15), Measure.PARAMETERS, 2)


@pytest.mark.parametrize("schedule", list(Schedule))
def test_schedules_begin_at_nothing_and_end_at_everything(schedule: Schedule) -> None:
    assert schedule.at(0) == 0
    assert schedule.at(1) == 1
    assert schedule.at(0.3) < schedule.at(0.6)
    assert Schedule.CUBIC.at(0.5) == pytest.approx(0.875)


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_a_reached_target_is_what_the_model_then_costs(
    clip_folder: Path, measure: Measure, share: float
) -> None:
    """What each unit saves adds up to what is really saved."""
    checkpoint = open_checkpoint(clip_folder)
    groups, before = [g for each in _groups(checkpoint).values() for g in each], _cost(checkpoint)
    limit = share * before.of(measure)
    for group, kept in zip(groups, select_to_target(groups, before, measure, limit), strict=True):
        prune_units_(checkpoint.model, group, kept, {})
    dearest = max(group.saves.of(measure) for group in groups)
    assert limit - dearest <= _cost(checkpoint).of(measure) <= limit


def test_costs_are_those_of_the_layers() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False))
    found = cost_of(module, torch.zeros(1, 3, 6))
    assert found == linear_cost(6, 5, 3) + linear_cost(5, 4, 3, bias=False)
    assert (found.parameters, found.macs) == (6 * 5 + 5 + 5 * 4, 3 * (6 * 5 + 5 * 4))
    assert positions(module, torch.zeros(1, 3, 6))["2"] == 3


def test_units_are_counted_from_the_original(clip_folder: Path) -> None:
    checkpoint = open_checkpoint(clip_folder)
    for group in _groups(checkpoint)["text_encoder"]:
        prune_units_(checkpoint.model, group, list(range(len(group) // 2)), {})
    for group in _groups(checkpoint)["text_encoder"]:
        assert group.original == 2 * len(group)
