"""Attention's activation-by-activation products: traced, observed and fake-quantized.

Such a product has no weights and hides inside a forward method, so that no hook of a layer sees it. It is
named after the attention that computes it: "<attention module>.scores" (queries x keys) is the first that a
call computes, "<attention module>.values" (attention weights x values) the second. With the `Segments` of a
fusion model's sequence, the blocks of a product are products of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import length_hint
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from pocketvl.errors import DataError, RecipeError
from pocketvl.families.layers.plain import first_output
from pocketvl.families.layers.segments import Blocks, Segments, block_name, is_scores
from pocketvl.network.integers import QuantizedProduct
from pocketvl.network.specification import Granularity, ProductSpec, Range, Scheme
from pocketvl.observe.observer import TensorObserver
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.arithmetic import activation_grid
from pocketvl.quantize.fake import fake_quantize
from pocketvl_runtime.progress import Progress

Feed = NDArray[Any] | tuple[NDArray[Any], ...]
Multiply = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
"""(name, left [..., M, K], right [..., K, N]) -> [..., M, N]"""
Watch = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""(name, left, right, what comes out), which are only looked at"""
Ranges = tuple[Range, Range, Range]
"""Of the left operand, the right one, and what comes out."""

_SETTINGS = CalibrationSettings()
_ATTENTION = ("attention", "attn")
_KINDS = ("scores", "values")
_PARTS = ("the left operand", "the right operand", "the result")
_PRODUCTS = frozenset(
    (torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__)
)
# What computes whole attentions, or products in a layout of its own, and what to do about it.
_EAGER, _MATMUL = 'load the model with attn_implementation="eager"', "write the attention with torch.matmul"
_OPAQUE: dict[object, str] = {
    F.scaled_dot_product_attention: _EAGER,
    F.multi_head_attention_forward: _MATMUL,
    torch.einsum: _MATMUL,
    torch.baddbmm: _MATMUL,
}


class _Interceptor(TorchFunctionMode):
    """Hands each product of two activations inside an attention module to `multiply`."""

    def __init__(self, module: nn.Module, multiply: Multiply) -> None:
        super().__init__()
        self._multiply = multiply
        self._running: list[tuple[str, Iterator[str]]] = []
        tensors = (*module.parameters(), *module.buffers())
        self._constants = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}

    def watch(self, name: str, child: nn.Module) -> Iterator[RemovableHandle]:
        def enter(*_: object) -> None:
            self._running.append((name, iter(_KINDS)))

        def leave(*_: object) -> None:
            self._running.pop()

        yield child.register_forward_pre_hook(enter, prepend=True)
        yield child.register_forward_hook(leave, always_call=True)  # even if the forward raises

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _OPAQUE and self._opaque(func, args):
            owner = self._running[-1][0] if self._running else "the module"
            raise DataError(
                f"{owner} computes attention in {func.__name__}, which cannot be seen into; {_OPAQUE[func]}"
            )
        if func in _PRODUCTS and self._running:
            operands = [*args, *(named[key] for key in ("input", "other", "mat2") if key in named)]
            if len(operands) == 2 and all(self._is_activation(operand) for operand in operands):
                return self._multiply(self._next_name(), *operands)
        return func(*args, **named)

    def _opaque(self, func: object, args: tuple[Any, ...]) -> bool:
        """Attention always is; einsum and baddbmm only where they are a product of attention's."""
        if func not in (torch.einsum, torch.baddbmm):
            return True
        values = [value for each in args for value in (each if isinstance(each, (list, tuple)) else (each,))]
        activations = [value for value in values if self._is_activation(value)]
        return bool(self._running) and len(activations) >= 2

    def _is_activation(self, value: object) -> bool:
        """Whether it is neither a parameter or a buffer nor a view of one."""
        if not isinstance(value, torch.Tensor):
            return False
        return value.untyped_storage().data_ptr() not in self._constants

    def _next_name(self) -> str:
        name, kinds = self._running[-1]
        kind = next(kinds, None)
        if kind is None:
            raise DataError(f"{name} computes a third product of two activations; attention has {_KINDS}")
        return f"{name}.{kind}"


def attention_modules(module: nn.Module) -> dict[str, nn.Module]:
    """The modules whose class, or own name in their parent, says attention; by name.

    A product belongs to the innermost of them that runs. Products outside of them are not looked for.
    """
    return {
        name: child
        for name, child in module.named_modules()
        if any(word in f"{name.rpartition('.')[2]} {type(child).__name__}".lower() for word in _ATTENTION)
    }


def check_names(module: nn.Module, names: Iterable[str], segments: Segments | None = None) -> None:
    """Refuse names of products that the module's attention cannot have, and a product beside its blocks.

    Raises:
        DataError: such a name is among them.
    """
    given, pairs = set(names), () if segments is None else segments.pairs()
    blocks = {
        product: {block_name(product, pair) for pair in pairs}
        for product in (f"{name}.{kind}" for name in attention_modules(module) for kind in _KINDS)
    }
    unknown = given.difference(blocks, *blocks.values())
    if unknown:
        known = "" if segments is None else f" and segments {', '.join(segments.lengths)}"
        raise DataError(
            f"{min(unknown)} is no product of the module's attention{known}; blocks need their segments"
        )
    for product, parts in blocks.items():
        if product in given and parts & given:
            raise DataError(f"{product} is named beside its block {min(parts & given)}; name one of them")


@contextmanager
def multiplied(module: nn.Module, multiply: Multiply) -> Iterator[None]:
    """Inside, each product of two activations in the module's attention is what `multiply` returns.

    Args:
        module: left as it is.
        multiply: called with the product's name and operands in place of torch.matmul.

    Raises:
        DataError: inside, where an attention cannot be seen into, or has more products than two.
    """
    interceptor = _Interceptor(module, multiply)
    handles: list[RemovableHandle] = []
    try:
        for name, child in attention_modules(module).items():
            handles.extend(interceptor.watch(name, child))
        with interceptor:
            yield
    finally:
        for handle in handles:
            handle.remove()


def product_shapes(
    module: nn.Module, feed: Feed, segments: Segments | None = None, blocks: Blocks = Blocks.WHOLE
) -> dict[str, tuple[int, int, int]]:
    """The products of two activations in the module's attention, in the order in which they run.

    Each is [..., M, K] x [..., K, N]: its name, and (M, K, N).

    Args:
        module: in eval mode; left as it is.
        feed: its input, or all of its inputs.
        segments: of the sequence, where blocks are asked for; products of anything but the whole sequence
            have no blocks, and are left out then.
        blocks: whole products, all of their blocks, or the cross-modal ones.

    Raises:
        DataError: an attention cannot be seen into.
        RecipeError: blocks of no segments are asked for.
    """
    shapes: dict[str, tuple[int, int, int]] = {}

    def watch(name: str, left: torch.Tensor, right: torch.Tensor, _: torch.Tensor) -> None:
        shapes[name] = (left.shape[-2], left.shape[-1], right.shape[-1])

    with torch.inference_mode(), multiplied(module, _watching(watch, segments, blocks)):
        run(module, feed)
    return shapes


def calibrate_products(
    module: nn.Module,
    feeds: Iterable[Feed],
    settings: CalibrationSettings = _SETTINGS,
    segments: Segments | None = None,
    blocks: Blocks = Blocks.WHOLE,
    progress: Progress | None = None,
) -> dict[str, Ranges]:
    """Run a module and observe the operands and results of the products that `product_shapes` finds.

    Attention weights lie within 0 to 1, but are given the range that was seen: most stay far below 1.

    Args:
        module: in eval mode; left as it is.
        feeds: inputs, read once; nothing of them is kept.
        settings: how ranges are chosen.
        segments: of the sequence, where blocks are asked for.
        blocks: whole products, all of their blocks, or the cross-modal ones.
        progress: called after each feed.

    Returns:
        By name, the ranges of the left operand, the right one and the result.

    Raises:
        DataError: no samples, an attention that cannot be seen into, or values that are not finite.
        RecipeError: blocks of no segments are asked for.
    """
    seen: dict[str, tuple[TensorObserver, ...]] = {}
    samples, total, done = 1, length_hint(feeds), 0

    def watch(name: str, *tensors: torch.Tensor) -> None:
        if name not in seen:
            seen[name] = tuple(TensorObserver(f"{part} of {name}", settings) for part in _PARTS)
        for observer, tensor in zip(seen[name], tensors, strict=True):
            observer.observe(tensor, samples)

    with torch.inference_mode(), multiplied(module, _watching(watch, segments, blocks)):
        for feed in feeds:
            samples = len(feed[0] if isinstance(feed, tuple) else feed)
            run(module, feed)
            done += 1
            if progress is not None:
                progress(done, max(total, done), "calibration of products")
    if done == 0:
        raise DataError("calibration needs at least one sample, and got none")
    return {
        name: (left.range(), right.range(), result.range()) for name, (left, right, result) in seen.items()
    }


def _watching(watch: Watch, segments: Segments | None, blocks: Blocks) -> Multiply:
    """Multiplies as torch does, and shows each product, or each of its blocks."""
    if blocks is not Blocks.WHOLE and segments is None:
        raise RecipeError(f"blocks ({blocks.value}) of products lie between segments, and none are given")

    def multiply(name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        result = torch.matmul(left, right)
        if segments is None or blocks is Blocks.WHOLE:
            watch(name, left, right, result)
        elif segments.span(name, left, right):
            for pair in segments.pairs(blocks):
                operands = segments.block(name, pair, left, right)
                watch(block_name(name, pair), *operands, torch.matmul(*operands))
        return result

    return multiply


def run(module: nn.Module, feed: Feed) -> torch.Tensor:
    """The module's output, or the first, for one feed: its input, or a tuple of all of its inputs."""
    inputs = feed if isinstance(feed, tuple) else (feed,)
    return first_output(module(*(torch.from_numpy(values) for values in inputs)))


def quantize_products(
    specs: Mapping[str, ProductSpec], seen: Mapping[str, Ranges]
) -> dict[str, QuantizedProduct]:
    """Quantize products by the calibration statistics of their operands.

    Args:
        specs: by the product's name, or its block's; the grids are affine, and of whole tensors.
        seen: the ranges of each.

    Raises:
        RecipeError: a grid that engines do not have for activations.
        DataError: calibration has not seen a product.
    """
    found = {}
    for name, spec in specs.items():
        for grid in filter(None, (spec.left, spec.right, spec.output)):
            if grid.scheme is not Scheme.AFFINE or grid.granularity is not Granularity.PER_TENSOR:
                raise RecipeError(f"{name}: a product has affine grids of whole tensors, not {grid}")
        if name not in seen:
            raise DataError(f"calibration never ran {name}, so that it cannot be quantized")
        left, right, result = seen[name]
        output = None if spec.output is None else activation_grid(result, spec.output.bits)
        found[name] = QuantizedProduct(
            spec, activation_grid(left, spec.left.bits), activation_grid(right, spec.right.bits), output
        )
    return found


def on_grids(products: Mapping[str, QuantizedProduct], segments: Segments | None = None) -> Multiply:
    """Multiply the named products with fake-quantized operands, and all others in float.

    Where some blocks of a product are named, the others are those of the float product: of scores they keep
    every bit. Values add a row of blocks up, each with its attention weights and values on its own grids.

    Args:
        products: by their names, or their blocks'.
        segments: of the sequence, where blocks are among them.
    """

    def multiply(name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if name in products:
            return _quantized(products[name], left, right)
        pairs = () if segments is None else segments.pairs()
        named = {pair: products[key] for pair in pairs if (key := block_name(name, pair)) in products}
        if segments is None or not named:
            return torch.matmul(left, right)
        if not segments.span(name, left, right):
            shapes = f"{list(left.shape)} x {list(right.shape)}"
            raise DataError(f"{name} is {shapes}, not over the {segments.total} positions of the segments")
        return _in_blocks(name, left, right, named, segments)

    return multiply


def _quantized(product: QuantizedProduct, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    result = torch.matmul(fake_quantize(left, product.left), fake_quantize(right, product.right))
    return result if product.output is None else fake_quantize(result, product.output)


def _in_blocks(
    name: str,
    left: torch.Tensor,
    right: torch.Tensor,
    named: Mapping[tuple[str, str], QuantizedProduct],
    segments: Segments,
) -> torch.Tensor:
    """[..., M, N], whose named blocks are of fake-quantized operands."""
    result, slices = torch.matmul(left, right), segments.slices()

    def block(pair: tuple[str, str]) -> torch.Tensor:
        operands = segments.block(name, pair, left, right)
        return _quantized(named[pair], *operands) if pair in named else torch.matmul(*operands)

    if is_scores(name):
        for queries, keys in named:
            result[..., slices[queries], slices[keys]] = block((queries, keys))
        return result
    for queries in dict.fromkeys(queries for queries, _ in named):
        parts = [block((queries, values)) for values in segments.lengths]
        result[..., slices[queries], :] = torch.stack(parts).sum(0)
    return result
