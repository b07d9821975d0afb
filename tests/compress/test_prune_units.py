"""Neurons and heads are removed for good, and only those that matter change what comes out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pocketvl.compress.costs import positions
from pocketvl.compress.heads import head_scores, prune_heads_
from pocketvl.compress.neurons import neuron_scores, prune_neurons_
from pocketvl.compress.settings import Score, Units
from pocketvl.compress.shrink import linear
from pocketvl.compress.structured import gate_gradients, groups_of
from pocketvl.errors import RecipeError
from pocketvl.families.layers.blocks import FeedForward, attentions, feed_forwards
from tests.compress.conftest import Model


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_layer_is_found(model: Model) -> None:
    assert len(feed_forwards(model.module)) == len(attentions(model.module)) == 2
    for attention in attentions(model.module):
        names = {name for name, _ in model.module.named_modules()}
        assert {attention.name, attention.output, *attention.inward} <= names
        assert linear(model.module, attention.query).out_features % attention.head_size == 0


def test_dead_neurons_go_without_a_trace(model: Model) -> None:
    before, size = model.outputs(), parameters_of(model.module)
    generator, saved = torch.Generator().manual_seed(2), 0
    for layer in feed_forwards(model.module):
        up, down = linear(model.module, layer.up), linear(model.module, layer.down)
        dead = torch.randperm(up.out_features, generator=generator)[: up.out_features // 3].sort().values
        with torch.no_grad():
            up.weight[dead], up.bias[dead], down.weight[:, dead] = 0, 0, 0
        scores = neuron_scores(model.module, layer)
        assert torch.equal((scores == 0).nonzero().flatten(), dead)
        saved += len(dead) * (up.in_features + 1 + down.out_features)
    expected = model.outputs()
    assert not torch.allclose(before, expected)  # they did matter before they died
    for layer in feed_forwards(model.module):
        kept = neuron_scores(model.module, layer).nonzero().flatten().tolist()
        prune_neurons_(model.module, layer, kept)
    assert (model.outputs() - expected).abs().max() < 1e-5
    assert parameters_of(model.module) == size - saved


def test_dead_heads_go_without_a_trace(model: Model) -> None:
    size, saved = parameters_of(model.module), 0
    for place, attention in enumerate(attentions(model.module)):
        module, wide = model.module, attention.head_size
        dead = place % 2
        rows = slice(dead * wide, (dead + 1) * wide)
        with torch.no_grad():
            linear(module, attention.output).weight[:, rows] = 0
            for name in attention.inward:
                linear(module, name).weight[rows] = 0
        assert (head_scores(module, attention) == 0).nonzero().flatten().tolist() == [dead]
        projection = linear(module, attention.output)
        saved += wide * (3 * (projection.out_features + 1) + projection.out_features)
    expected = model.outputs()
    for attention in attentions(model.module):
        kept = head_scores(model.module, attention).nonzero().flatten().tolist()
        prune_heads_(model.module, attention, kept)
    assert (model.outputs() - expected).abs().max() < 1e-5
    assert parameters_of(model.module) == size - saved


def test_a_removed_constant_goes_on_in_the_bias(model: Model) -> None:
    layer = feed_forwards(model.module)[0]
    up, down = linear(model.module, layer.up), linear(model.module, layer.down)
    with torch.no_grad():
        up.weight[3] = 0  # this neuron gives the same whatever comes in
    expected, seen = model.outputs(), []
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    model.outputs()
    handle.remove()
    kept = [place for place in range(up.out_features) if place != 3]
    prune_neurons_(model.module, layer, kept, torch.cat(seen).mean(0))
    assert (model.outputs() - expected).abs().max() < 1e-5


def test_scores_are_sums_over_what_comes_in_and_goes_out() -> None:
    module = nn.ModuleDict({"up": nn.Linear(2, 3), "down": nn.Linear(3, 2)})
    up, down = linear(module, "up"), linear(module, "down")
    with torch.no_grad():
        up.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]]))
        down.weight.copy_(torch.tensor([[-1.0, 4.0, 0.0], [2.0, -4.0, 0.25]]))
    layer = FeedForward("up", "down")
    assert neuron_scores(module, layer).tolist() == [3 + 3, 0.5 + 8, 3 + 0.25]
    for parameter in (up.weight, down.weight):
        parameter.grad = torch.full_like(parameter, -2.0)
    assert neuron_scores(module, layer, Score.TAYLOR).tolist() == [12, 17, 6.5]
    up.weight.grad = None
    with pytest.raises(ValueError, match="gradients"):
        neuron_scores(module, layer, Score.TAYLOR)


def test_a_gate_is_what_the_loss_changes_by_with_what_a_unit_gives(model: Model) -> None:
    both = (Units.NEURONS, Units.HEADS)
    groups = groups_of(model.module, model.module, both, Score.MAGNITUDE, positions(model.module, model.feed))
    with pytest.raises(ValueError, match="gates need gradients"):
        gate_gradients(model.module, groups[0])
    module = model.module.requires_grad_()

    def loss() -> torch.Tensor:
        found: torch.Tensor = module(model.feed)
        return (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum()

    loss().backward()  # type: ignore[no-untyped-call]
    for group in groups:
        gates, unit = gate_gradients(module, group), len(group) - 1
        block, size = group.block, 1
        if not isinstance(block, FeedForward):
            size = block.head_size
        weight = linear(module, block.down if isinstance(block, FeedForward) else block.output).weight
        columns, ends = slice(unit * size, (unit + 1) * size), []
        for change in (0.03, -0.03):
            with torch.no_grad():
                before = weight[:, columns].clone()
                weight[:, columns] *= 1 + change
                ends.append(float(loss()))
                weight[:, columns] = before
        assert float(gates[unit]) == pytest.approx((ends[0] - ends[1]) / 0.06, rel=0.02, abs=1e-4)
        assert len(gates) == len(group)
    with pytest.raises(ValueError, match="on a unit, not on a weight"):
        neuron_scores(module, feed_forwards(module)[0], Score.GATE)


def test_a_taylor_score_is_what_the_loss_changes_by_when_it_is_linear() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"up": nn.Linear(4, 6), "down": nn.Linear(6, 1, bias=False)})
    x = torch.rand(1, 4)
    down = linear(module, "down")
    down(module["up"](x)).sum().backward()
    effect = (down.weight * module["up"](x)).detach().abs().flatten().double()
    assert down.weight.grad is not None
    outgoing = (down.weight * down.weight.grad).abs().flatten().double()
    torch.testing.assert_close(outgoing, effect, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kept", [[], [0, 0], [1, 0], [-1, 2], [0, 999]])
def test_what_cannot_be_kept_is_said(model: Model, kept: list[int]) -> None:
    before = parameters_of(model.module)
    with pytest.raises(RecipeError, match="neurons"):
        prune_neurons_(model.module, feed_forwards(model.module)[0], kept)
    with pytest.raises(RecipeError, match="heads"):
        prune_heads_(model.module, attentions(model.module)[0], kept)
    assert parameters_of(model.module) == before


def test_training_goes_on_where_it_was(model: Model) -> None:
    layer = feed_forwards(model.module)[0]
    model.module.requires_grad_(True).train()
    prune_neurons_(model.module, layer, [0, 2])
    shrunk = linear(model.module, layer.up)
    assert shrunk.weight.requires_grad
    assert shrunk.training
    assert math.prod(shrunk.weight.shape) == 2 * shrunk.in_features
