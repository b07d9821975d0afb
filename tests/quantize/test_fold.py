"""Folding changes weights and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from pocketvl.families.base import example_inputs
from pocketvl.families.layers.plain import NormalizePixels, RawPixels
from pocketvl.quantize.fold import NormReaders, fold_, norm_readers
from pocketvl_runtime.manifest import ImageProcessor, Normalization, ResizeMode
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual
from tests.lower.lowered import COMPONENTS, samples

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1 / 255)
PREPROCESS = ImageProcessor.bicubic(ResizeMode.EXACT, (8, 8), (8, 8), NORMALIZATION)


class Normed(nn.Module):
    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.one, self.two = nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.residual = residual
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        y: torch.Tensor = self.one(normed) * self.two(normed)
        return y + normed[:, :4] if self.residual else y


def test_a_norm_that_only_linears_read_is_folded_into_each() -> None:
    module, x = Normed(residual=False).eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)
    assert (module.norm.weight == 1).all()
    assert (module.norm.bias == 0).all()
    assert module.one.bias is not None


def test_a_norm_that_something_else_reads_stays() -> None:
    module, x = Normed(residual=True).eval(), torch.ones(3, 6)
    before = module.norm.weight.clone()
    assert fold_(module, x) == ()
    assert torch.equal(module.norm.weight, before)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_clip_component_computes_the_same(component: str, tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    module = source.component("image_encoder" if component == "pixels" else "text_encoder").module
    data = torch.from_numpy(np.concatenate([feed[component] for feed in samples(component, 8, 3)]))
    with torch.no_grad():
        expected = module(data)
        folded = fold_(module, data[:1])
        assert torch.allclose(module(data), expected, atol=1e-5)
    assert len(folded) >= 4  # two in each of two layers


@pytest.mark.parametrize("component", COMPONENTS)
def test_score_scales_and_quick_gelus_go_into_linears(component: str, tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    module = source.component("image_encoder" if component == "pixels" else "text_encoder").module
    data = torch.from_numpy(samples(component, 1, 3)[0][component])
    fold_(module, data)
    layers = [child for child in module.modules() if hasattr(child, "self_attn")]
    assert len(layers) == 2
    for layer in layers:
        assert layer.get_submodule("self_attn").scale == 1.0
        assert isinstance(layer.get_submodule("mlp").activation_fn, nn.SiLU)


def test_factors_go_into_the_linear_that_gives_the_output_of_two(tmp_path: Path) -> None:
    module = open_checkpoint(make_tiny_clip(tmp_path / "clip")).component("image_encoder").module
    for name in ("self_attn.q_proj", "mlp.fc1", "mlp.fc2"):
        _factorize_(module, f"vision_model.encoder.layers.0.{name}")
    data = torch.from_numpy(np.concatenate([feed["pixels"] for feed in samples("pixels", 4, 3)]))
    with torch.no_grad():
        expected = module(data)
        fold_(module, data[:1])
        assert torch.allclose(module(data), expected, atol=1e-5)


def _factorize_(module: nn.Module, name: str) -> None:
    """Put two linears in the place of one."""
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    first = nn.Linear(linear.in_features, linear.in_features, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(linear.in_features))
    module.set_submodule(name, nn.Sequential(first, linear))


class Calls(nn.Module):
    """One LayerNorm called twice, two linears that may share their weights, and what else is asked for."""

    def __init__(self, tied: bool = False, borrowed: bool = False, second_input: bool = False) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.norm = nn.LayerNorm(6)
        self.one, self.two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
        if tied:
            self.two.weight = self.one.weight
        self.borrowed, self.second_input = borrowed, second_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.one(self.norm(x)) + self.two(self.norm(x + 1))
        if self.borrowed:
            y = y + nn.functional.linear(x, self.one.weight)
        return self.two(y) if self.second_input else y


def test_a_norm_called_twice_is_folded_once() -> None:
    module, x = Calls().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)


@pytest.mark.parametrize("trouble", ["tied", "borrowed", "second_input"])
def test_a_norm_whose_readers_weights_serve_elsewhere_stays(trouble: str) -> None:
    module, x = Calls(**{trouble: True}).eval(), torch.ones(3, 6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert fold_(module, x) == ()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_norm_without_a_shift_is_folded() -> None:
    module, x = Normed(residual=False).eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    module.norm.bias = None  # type: ignore[assignment]  # as LayerNorm(6, bias=False) has it
    with torch.no_grad():
        expected = module(x)
        assert fold_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)


def test_readers_are_named_in_the_order_of_the_graph() -> None:
    assert norm_readers(Normed(residual=False).eval(), torch.ones(3, 6)) == (
        NormReaders("norm", ("one", "two")),
    )


class Factorised(nn.Module):
    """A LayerNorm read by a linear that has become two of a lower rank."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.pair = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 5))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pair(self.norm(x))
        return y


def test_of_two_factors_the_second_takes_the_shift() -> None:
    module, x = Factorised().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)
    assert module.pair[0].bias is None


class Patches(nn.Module):
    """Normalised pixels, and a convolution of them."""

    def __init__(self, bias: bool = True, padding: int = 0, twice: bool = False) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.normalize: nn.Module = NormalizePixels(PREPROCESS)
        self.patches = nn.Conv2d(3, 5, 4, 4, padding=padding, bias=bias)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
        self.twice = twice

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = self.normalize(pixels)
        y: torch.Tensor = self.patches(values)
        return y + values.mean() if self.twice else y


@pytest.mark.parametrize("bias", [False, True])
def test_pixel_normalisation_is_folded_in_double_precision(bias: bool) -> None:
    module, pixels = Patches(bias).eval(), torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).view(2, 8, 8, 3)
    weight = module.patches.weight.detach().double()
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (NORMALIZATION.mean, NORMALIZATION.std)
    )
    shift = -(weight * (mean / std)).sum(dim=(1, 2, 3))
    if bias:
        shift = shift + module.patches.bias.detach().double()  # type: ignore[union-attr]
    with torch.no_grad():
        expected = module(pixels)
        fold_(module, pixels)
        torch.testing.assert_close(module(pixels), expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(module.patches.weight, (weight * (NORMALIZATION.rescale / std)).float())
    assert torch.equal(module.patches.bias, shift.float())  # type: ignore[arg-type]
    assert isinstance(module.normalize, RawPixels)


@pytest.mark.parametrize("trouble", [{"padding": 1}, {"twice": True}])
def test_pixel_normalisation_that_cannot_be_folded_stays(trouble: dict[str, int]) -> None:
    module = Patches(**trouble).eval()  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fold_(module, torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert isinstance(module.normalize, NormalizePixels)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_layer_scales_go_into_the_linears_before_them(tmp_path: Path) -> None:
    folder = make_tiny_dual(tmp_path / "dual")
    checkpoint, plain = open_checkpoint(folder), open_checkpoint(folder)
    component, name = checkpoint.component("image_encoder"), "vision_model.encoder.stages.0.layers.1"
    old, new = (each.model.get_submodule(name) for each in (plain, checkpoint))
    fold_(component.module, example_inputs(component))
    scale = old.get_parameter("layer_scale_parameter").detach()
    folded, before = (each.get_parameter("pwconv2.weight").detach() for each in (new, old))
    assert torch.equal(folded, before * scale[:, None])
    assert getattr(new, "layer_scale_parameter", None) is None
    pixels = torch.randint(0, 256, (2, *example_inputs(component)[0].shape[1:]), dtype=torch.uint8)
    with torch.no_grad():
        found, wanted = component.module(pixels), plain.component("image_encoder").module(pixels)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
