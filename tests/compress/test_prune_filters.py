"""Filters of a convolutional tower with residuals and depthwise convolutions."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from transformers import ConvNextConfig, ConvNextModel, MobileNetV2Config, MobileNetV2Model

from pocketvl.compress.costs import cost_of
from pocketvl.compress.methods.prune_filters import FilterGroup, filter_groups, prune_filters_
from pocketvl.compress.settings import Score
from pocketvl.errors import RecipeError
from pocketvl.lower.onnx.export import export_onnx

SIZE = 32


class Encoder(nn.Module):
    """float32 [B, 3, 32, 32] -> float32 [B, 12]."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.projection = nn.Linear(width, 12)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.projection(self.model(pixels).pooler_output)
        return found


def _randomize_(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, value in sorted(module.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise / value[0].numel() ** 0.5 if value.ndim > 1 else 1 + 0.2 * noise)
        for name, seen in sorted(module.named_buffers()):
            if name.endswith("running_mean"):
                seen.copy_(0.1 * torch.randn(seen.shape, generator=generator))
            elif name.endswith("running_var"):
                seen.copy_(1 + torch.rand(seen.shape, generator=generator))


def _mobilenet() -> Encoder:
    config = MobileNetV2Config(depth_multiplier=0.35, image_size=SIZE, min_depth=8)
    model = MobileNetV2Model(config)
    return Encoder(model, model.conv_1x1.convolution.out_channels)


def _convnext() -> Encoder:
    config = ConvNextConfig(hidden_sizes=[16, 24], depths=[2, 2], num_stages=2, image_size=SIZE)
    return Encoder(ConvNextModel(config), 24)


@pytest.fixture(params=[_mobilenet, _convnext], ids=["mobilenet", "convnext"])
def component(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    made: Encoder = request.param()
    _randomize_(made)
    return made.train(False)


@pytest.fixture
def example() -> torch.Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


def _half(groups: tuple[FilterGroup, ...]) -> dict[str, list[int]]:
    return {
        group.root: sorted(group.scores.argsort(descending=True)[: max(1, len(group) // 2)].tolist())
        for group in groups
    }


def _outputs(module: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(pixels)
    return found


def test_dead_filters_go_without_a_trace(example: torch.Tensor, pixels: torch.Tensor) -> None:
    """Dead is what gives nothing in every layer of its group: through residual sums and depthwise layers."""
    torch.manual_seed(0)
    component = _mobilenet()
    _randomize_(component)
    component.train(False)
    kept = {}
    coupled = 0
    for place, group in enumerate(filter_groups(component, example, ["projection"])):
        dead = [k for k in range(len(group)) if (k + place) % 3 == 0][: len(group) - 1]
        for name in group.layers:
            layer = component.get_submodule(name)
            with torch.no_grad():
                if isinstance(layer, nn.BatchNorm2d) and layer.num_features == len(group):
                    layer.weight[dead], layer.bias[dead] = 0, 0
        coupled = max(coupled, len(group.layers))
        kept[group.root] = [k for k in range(len(group)) if k not in dead]
    assert coupled > 6  # a residual sum is among them
    expected, before = _outputs(component, pixels), cost_of(component, example)
    prune_filters_(component, example, kept, ["projection"])
    assert (_outputs(component, pixels) - expected).abs().max() < 1e-5
    after = cost_of(component, example)
    assert after.parameters < 0.7 * before.parameters
    assert after.macs < 0.7 * before.macs


def test_what_is_left_is_smaller_and_runs(
    component: Encoder, example: torch.Tensor, pixels: torch.Tensor
) -> None:
    groups = filter_groups(component, example, ["projection"])
    assert len(groups) > 2
    assert all(group.scores.min() > 0 for group in groups)
    before = cost_of(component, example)
    prune_filters_(component, example, _half(groups), ["projection"])
    assert _outputs(component, pixels).shape == (3, 12)
    assert cost_of(component, example).parameters < 0.6 * before.parameters
    for group in filter_groups(component, example, ["projection"]):
        assert len(group) == len(_half(groups)[group.root])


def test_the_exported_graph_has_the_smaller_shapes(
    component: Encoder, example: torch.Tensor, tmp_path: Path
) -> None:
    def filters(name: str) -> list[int]:
        with torch.no_grad():
            component.requires_grad_(False)
        export_onnx(component, {"pixels": example}, tmp_path / name)
        graph = onnx.load(tmp_path / name).graph
        return sorted(each.dims[0] for each in graph.initializer if len(each.dims) == 4)

    before = filters("before.onnx")
    groups = filter_groups(component, example, ["projection"])
    prune_filters_(component, example, _half(groups), ["projection"])
    after = filters("after.onnx")
    assert len(after) == len(before)
    assert sum(after) < 0.6 * sum(before)


def test_taylor_scores_are_of_weights_and_their_gradients(component: Encoder, example: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="Taylor scores need gradients"):
        filter_groups(component, example, ["projection"], Score.TAYLOR)
    before = {name: value.clone() for name, value in component.state_dict().items()}
    torch.autograd.backward(component(example).square().sum())
    by_taylor = filter_groups(component, example, ["projection"], Score.TAYLOR)
    by_magnitude = filter_groups(component, example, ["projection"])
    assert [group.root for group in by_taylor] == [group.root for group in by_magnitude]
    assert all(torch.equal(value, before[name]) for name, value in component.state_dict().items())
    last = by_taylor[-1]
    with torch.no_grad():
        for name in last.layers:
            layer = component.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.grad = torch.ones_like(layer.weight)  # w * 1: what is left is the magnitude
    again = filter_groups(component, example, ["projection"], Score.TAYLOR)[-1]
    assert not torch.allclose(last.scores, again.scores)
    assert torch.allclose(again.scores, by_magnitude[-1].scores)


@pytest.mark.parametrize(
    ("ratio", "original", "kept"),
    [(0.5, 4, [0, 2]), (0.25, 4, [0, 2, 3]), (0.99, 4, [2]), (0.5, 8, [0, 1, 2, 3]), (0.75, 8, [0, 2])],
)
def test_a_ratio_is_of_the_original_filters(ratio: float, original: int, kept: list[int]) -> None:
    group = FilterGroup("root", ("root",), torch.tensor([3.0, 1.0, 4.0, 2.0], dtype=torch.float64))
    assert group.select(ratio, original) == kept


def test_what_cannot_be_is_refused(component: Encoder, example: torch.Tensor) -> None:
    root = filter_groups(component, example)[0].root
    with pytest.raises(RecipeError, match="at least one has to stay"):
        prune_filters_(component, example, {root: []})
    with pytest.raises(RecipeError, match="is the root of no group"):
        prune_filters_(component, example, {"nothing": [0]})
    with pytest.raises(RecipeError, match="nothing is no layer"):
        filter_groups(component, example, ["nothing"])
