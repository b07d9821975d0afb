"""Quantization-aware training of a component: float master weights under the forward pass that ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from pocketvl.errors import RecipeError
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer, QuantizedProduct
from pocketvl.network.specification import Granularity, Mode
from pocketvl.quantize.arithmetic import quantize_bias, step_ends
from pocketvl.quantize.fake import fake_quantize_dynamic, straight_through
from pocketvl.quantize.learned import LearnedActivation, LearnedWeights
from pocketvl.quantize.products import multiplied

# How far from the middle of its step a weight may start, in steps. Where weights were rounded to make up for
# each other, those near a border would cross it at once, and the corrections of the others be wrong: 80 steps
# of training took the loss of the tabletop image tower, in 4 bits by GPTQ, from .0057 to .0135 with weights
# up to .499 from the middle, and to .0055 with weights up to .25.
_ANYWHERE, _WELL_WITHIN = 0.499, 0.25


class Finished(NamedTuple):
    """A component after quantization-aware training.

    Attributes:
        state: of the plain float module, by its own names; on the CPU.
        component: the integers that ship: the weights of `state` on their learned grids.
    """

    state: dict[str, torch.Tensor]
    component: QuantizedComponent


class QatComponent(nn.Module):
    """Fake-quantized copy of a module, whose weights and quantization scales are trained together.

    It starts out as the calibrated component, to the last bit: a layer's weights start as the module's own;
    where the component rounded some to another step than the nearest (GPTQ does), all of the layer's start
    well within the steps it gave them, on the side of the module's own. Biases are the component's, which may
    have been corrected.

    A LayerNorm that scales by 1 and shifts by 0 has been folded, and stays so: one converter would fold
    whatever it learned into weights that are replaced by the integers. Activations that start on the very
    same grid share what is learned of it: such are the linears that read one tensor, and an engine that
    quantizes the tensor once has one grid for it.

    Weights much smaller than other layers' are kept in a larger unit, since Adam's steps are of one size for
    all: a patch embedding that takes raw pixels would be lost at the first of them.

    The module inside is called as it is, with other weights and biases in their places for the time of the
    call; nothing in it is replaced. It stays in eval mode, as what ships has no dropout.
    """

    def __init__(self, module: nn.Module, component: QuantizedComponent, scale_rate: float = 1.0) -> None:
        """Wrap a copy of a module.

        Args:
            module: the float module that the component was quantized from; left as it is.
            component: its integers and grids.
            scale_rate: how much faster scales and offsets learn than weights; a step of the optimizer moves
                a scale by about its learning rate times this, relative to the scale.

        Raises:
            RecipeError: the component has grids that are not learned here.
        """
        super().__init__()
        _check(component)
        self.module = deepcopy(module).eval()
        for parameter in self.module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        _freeze_folded_(self.module)
        self._component = component
        pairs = [(layer.input, layer.output) for layer in component.layers.values()]
        products = [(each.left, each.right, each.output) for each in component.products.values()]
        grids = dict.fromkeys(grid for several in (*pairs, *products) for grid in several if grid is not None)
        self._index = {grid: index for index, grid in enumerate(grids)}
        self.activations = nn.ModuleList(LearnedActivation(grid, scale_rate) for grid in grids)
        self.weights = nn.ModuleList(LearnedWeights(layer, scale_rate) for layer in component.layers.values())
        for name, layer in component.layers.items():
            _start_(self.module.get_submodule(name), layer)
        self.units: torch.Tensor
        self.register_buffer(
            "units", _units([child.get_parameter("weight") for *_, child in self._learned()])
        )
        with torch.no_grad():
            for (*_, child), unit in zip(self._learned(), self.units, strict=True):
                child.get_parameter("weight").div_(unit)

    def train(self, mode: bool = True) -> QatComponent:
        """Set the mode of the fake quantizers; the wrapped module stays in eval mode."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's outputs, with fake-quantized weights and activations."""
        changed: dict[str, torch.Tensor] = {}
        for (name, layer, learned, child), unit in zip(self._learned(), self.units, strict=True):
            scale, bias = self._weight_scale(child, layer, learned), getattr(child, "bias", None)
            changed[f"{name}.weight"] = learned(child.get_parameter("weight") * unit, scale)
            inputs_grid = self._activation(layer.input)
            if inputs_grid is not None and bias is not None:
                changed[f"{name}.bias"] = _on_steps(bias, inputs_grid.scale(), scale)
        with self._hooked():
            answer: torch.Tensor = functional_call(self.module, changed, inputs)
        return answer

    def finish(self) -> Finished:
        """The trained module's state, and its integers on the learned grids."""
        state = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        layers = {}
        for (name, layer, learned, child), unit in zip(self._learned(), self.units.cpu(), strict=True):
            state[f"{name}.weight"] *= unit
            layers[name] = self._finished(state[f"{name}.weight"], child, layer, learned)
        products = {
            name: QuantizedProduct(
                product.spec, **{side: self._grid(grid).grid() for side, grid in product.grids.items()}
            )
            for name, product in self._component.products.items()
        }
        return Finished(state, replace(self._component, layers=layers, products=products))

    def _learned(self) -> Iterator[tuple[str, QuantizedLayer, LearnedWeights, nn.Module]]:
        """For each layer: its name, initial integers, learned scales and the module."""
        for (name, layer), learned in zip(self._component.layers.items(), self.weights, strict=True):
            assert isinstance(learned, LearnedWeights)
            yield name, layer, learned, self.module.get_submodule(name)

    def _activation(self, initial: ActivationGrid | None) -> LearnedActivation | None:
        return None if initial is None else self._grid(initial)

    def _grid(self, initial: ActivationGrid) -> LearnedActivation:
        """The trained scale of one of the component's activation grids."""
        learned = self.activations[self._index[initial]]
        assert isinstance(learned, LearnedActivation)
        return learned

    def _weight_scale(self, child: nn.Module, layer: QuantizedLayer, learned: LearnedWeights) -> torch.Tensor:
        """The scales; a static layer's not so fine that its bias would not fit 32 bits."""
        inputs, bias = self._activation(layer.input), getattr(child, "bias", None)
        if inputs is None or bias is None:
            return learned.scale()
        return learned.scale((bias.detach().abs() / (inputs.scale().detach() * 2.0**30)).float())

    def _finished(
        self, weight: torch.Tensor, child: nn.Module, layer: QuantizedLayer, learned: LearnedWeights
    ) -> QuantizedLayer:
        with torch.no_grad():
            scale = self._weight_scale(child, layer, learned)
            zero_point, scale = learned.zero_point(scale), scale.cpu()
        if zero_point is not None:
            zero_point = zero_point.cpu()
        integers = learned.integers(weight, scale, zero_point).numpy()
        zeros = None if zero_point is None else zero_point.numpy().astype(np.uint8)
        inputs, outputs = self._activation(layer.input), self._activation(layer.output)
        kept = scale.numpy().copy()
        bias = None if layer.bias is None else _numpy(child.get_parameter("bias"))
        if inputs is None or outputs is None:
            return QuantizedLayer(layer.spec, integers, kept, bias, zero_point=zeros)
        steps = None if bias is None else quantize_bias(bias, inputs.grid().scale, kept)
        return QuantizedLayer(layer.spec, integers, kept, steps, inputs.grid(), outputs.grid(), zeros)

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Inside, activations pass through their grids. Hooks that stayed would outlive a copy's grids."""
        handles = []
        try:
            for _, layer, _, child in self._learned():
                if layer.spec.mode is Mode.DYNAMIC:
                    handles.append(child.register_forward_pre_hook(_dynamic))
                inputs, outputs = self._activation(layer.input), self._activation(layer.output)
                if inputs is not None:
                    handles.append(child.register_forward_pre_hook(_Before(inputs)))
                if outputs is not None:
                    handles.append(child.register_forward_hook(_After(outputs)))
            with multiplied(self.module, self._multiply) if self._component.products else nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _multiply(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = self._component.products.get(name)
        if product is None:
            return torch.matmul(left, right)
        result = torch.matmul(self._grid(product.left)(left), self._grid(product.right)(right))
        return result if product.output is None else self._grid(product.output)(result)


class _Before:
    """A forward pre-hook that fake-quantizes a layer's first input."""

    def __init__(self, grid: LearnedActivation) -> None:
        self._grid = grid

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (self._grid(inputs[0]), *inputs[1:])


class _After:
    """A forward hook that fake-quantizes a layer's output."""

    def __init__(self, grid: LearnedActivation) -> None:
        self._grid = grid

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._grid(output)
        return found


def _dynamic(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A forward pre-hook that fake-quantizes a layer's first input with its own range."""
    values = inputs[0].float()
    return (straight_through(values, fake_quantize_dynamic(values.detach())), *inputs[1:])


def _check(component: QuantizedComponent) -> None:
    for name in component.products:
        if name.rpartition(".")[2] not in ("scores", "values"):
            raise RecipeError(f"{name} is a block of a product; grids are learned of whole products alone")
    for name, layer in component.layers.items():
        if layer.spec.mode is Mode.STATIC and layer.spec.weights.granularity is Granularity.PER_GROUP:
            raise RecipeError(f"{name} is static, and its scales are of groups; engines add up per channel")


def _freeze_folded_(module: nn.Module) -> None:
    for child in module.modules():
        if (
            isinstance(child, nn.LayerNorm)
            and _does_nothing(child.weight, 1)
            and _does_nothing(child.bias, 0)
        ):
            child.requires_grad_(False)


def _does_nothing(parameter: torch.Tensor | None, neutral: float) -> bool:
    return parameter is None or bool((parameter == neutral).all())


def _start_(child: nn.Module, layer: QuantizedLayer) -> None:
    """Move weights into the quantization steps that the component gave them, and set its bias."""
    with torch.no_grad():
        weight = child.get_parameter("weight")
        integers = torch.from_numpy(layer.weights).to(weight).reshape(len(weight), -1)
        scale = torch.from_numpy(layer.scale).to(weight).reshape(len(weight), -1)
        scale = scale.repeat_interleave(integers.shape[1] // scale.shape[1], dim=1)  # [channels, inputs]
        lowest, highest = (
            torch.from_numpy(np.broadcast_to(end, integers.shape).copy())
            for end in step_ends(layer.spec.weights, layer.zero_point, tuple(integers.shape))
        )
        steps = torch.clamp(weight.reshape(integers.shape) / scale, lowest, highest)
        nearest = bool(((steps - integers).abs() < 1 - _ANYWHERE).all())  # either side of a tie is
        reach = _ANYWHERE if nearest else _WELL_WITHIN
        low = torch.where(integers > lowest, (integers - reach) * scale, -torch.inf)
        high = torch.where(integers < highest, (integers + reach) * scale, torch.inf)
        weight.copy_(torch.clamp(weight, low.reshape(weight.shape), high.reshape(weight.shape)))
        bias = layer.float_bias()
        if bias is not None:
            child.get_parameter("bias").copy_(torch.from_numpy(bias))


def _units(weights: list[nn.Parameter]) -> torch.Tensor:
    """float32 [layers], powers of 2 up to 1: divided by them, weights are as large as the median layer's.

    Or half as large to twice; in such units they are exact. No layer is to learn faster for its size.
    """
    sizes = torch.stack([weight.detach().square().mean().sqrt() for weight in weights])
    smaller = torch.round(torch.log2(sizes / sizes.median())).clamp(max=0).nan_to_num(0.0, 0.0, 0.0)
    return torch.exp2(smaller).cpu()


def _on_steps(bias: torch.Tensor, input_scale: torch.Tensor, weight_scale: torch.Tensor) -> torch.Tensor:
    """A static layer's bias in whole steps, as `quantize_bias` makes them and `float_bias` reads them."""
    steps = (input_scale * weight_scale).detach().double()
    return straight_through(bias, (torch.round(bias.detach() / steps) * steps).to(bias.dtype))


def _numpy(values: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().cpu().numpy().copy()
    return found
