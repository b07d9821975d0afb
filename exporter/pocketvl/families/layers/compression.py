"""compression.json: the shapes of a compressed checkpoint that config.json cannot express."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from torch import nn
from torch.nn.utils import skip_init

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families.folders.files import COMPRESSION_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.layers.blocks import Attention, attentions, set_head_count_
from pocketvl.families.layers.segments import Segments
from pocketvl.families.layers.split_attention import Block, SplitAttention, removed_blocks
from pocketvl_runtime.errors import quoted

SCHEMA_VERSION = 1
_NORMS = (nn.LayerNorm, nn.BatchNorm2d)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class LinearShape:
    """The shape of a linear.

    Attributes:
        inputs: numbers that go in.
        outputs: numbers that come out.
        rank: of a linear that has become two, inputs -> rank -> outputs, the first of them without a bias.
    """

    inputs: int
    outputs: int
    rank: int | None = None


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class ConvolutionShape:
    """The channels of a convolution; a depthwise one stays so, with as many groups as channels.

    Attributes:
        inputs: channels that go in.
        outputs: channels that come out.
    """

    inputs: int
    outputs: int


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class RemovedBlocks:
    """Attention blocks removed from some heads: one segment's queries do not read another's keys.

    Attributes:
        attention: its name in the model.
        queries: segment that would read.
        keys: segment that would be read.
        heads: which, counted among those that are left.
    """

    attention: str
    queries: str
    keys: str
    heads: tuple[int, ...]


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class Compression:
    """The differences of a checkpoint's shapes from the model that config.json describes.

    Attributes:
        linears: by their names in the model, those of another shape.
        convolutions: by their names, those of other channels.
        channels: of norms and of vectors that belong to no layer of these kinds, by their names.
        segments: of a fusion model's sequence, in tokens, by which attentions are split.
        removed: cross-modal blocks that are gone.
        dropped: components that are no part of the model any more, of whose weights all stay.
        schema_version: of the JSON.
    """

    linears: Mapping[str, LinearShape] = field(default_factory=dict)
    convolutions: Mapping[str, ConvolutionShape] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)
    segments: Mapping[str, int] = field(default_factory=dict)
    removed: tuple[RemovedBlocks, ...] = ()
    dropped: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Write compression.json, or remove it where nothing differs."""
        path = folder / COMPRESSION_FILE
        if not (self.linears or self.convolutions or self.channels or self.removed or self.dropped):
            path.unlink(missing_ok=True)
            return
        # versions before filters were pruned know linears only
        document = {name: value for name, value in asdict(self).items() if value or name == "linears"}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_compression(folder: Path) -> Compression:
    """Read compression.json; without one, nothing differs.

    Raises:
        SourceError: it cannot be read, is of another version or says what makes no sense.
    """
    path = folder / COMPRESSION_FILE
    if not path.exists():
        return Compression()
    stored = read_json(path)
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise SourceError(
            f"{path} is of version {quoted(stored.get('schema_version'))}, and {SCHEMA_VERSION} is known here"
        )
    try:
        found = TypeAdapter(Compression).validate_json(json.dumps(stored))  # strict, but for JSON
    except ValidationError as error:
        first = error.errors()[0]
        raise SourceError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for name, shape in found.linears.items():
        if min(shape.inputs, shape.outputs, 1 if shape.rank is None else shape.rank) < 1:
            raise SourceError(f"{path}: {name} has a size below 1")
    sizes = {name: min(each.inputs, each.outputs) for name, each in found.convolutions.items()}
    for name, size in (*sizes.items(), *found.channels.items()):
        if size < 1:
            raise SourceError(f"{path}: {name} has a size below 1")
    return found


def reshape_(model: nn.Module, compression: Compression, where: Path) -> None:
    """Give a model that was built from config.json the shapes of its compressed weights.

    Args:
        model: changed in place; what its new linears hold is to be loaded.
        compression: the shapes.
        where: the folder, for messages.

    Raises:
        SourceError: the model has no such linear, convolution, norm or vector.
    """
    for name, channels in compression.convolutions.items():
        _reshape_convolution_(model, name, channels, where)
    for name, count in compression.channels.items():
        _reshape_channels_(model, name, count, where)
    heads = attentions(model)
    for name, shape in compression.linears.items():
        child = _child(model, name)
        if not isinstance(child, nn.Linear):
            raise SourceError(f"{where / COMPRESSION_FILE}: {name} is no linear of this model")
        model.set_submodule(name, linear_of(shape, child.bias is not None))
    for attention in heads:
        if attention.query not in compression.linears:
            continue
        width, size = compression.linears[attention.query].outputs, attention.head_size
        if width % size:
            raise SourceError(
                f"{where / COMPRESSION_FILE}: {attention.query} gives {width} numbers, which heads of {size} "
                "do not divide"
            )
        set_head_count_(model, attention, width // size)
    if compression.removed:
        _split_(model, heads, compression, where / COMPRESSION_FILE)


def _split_(model: nn.Module, heads: Sequence[Attention], compression: Compression, where: Path) -> None:
    """Split attentions again, whose linears may be two of a lower rank by now."""
    by_name = {attention.name: attention for attention in heads}
    lost: dict[str, list[Block]] = {}
    for each in compression.removed:
        if each.attention not in by_name:
            raise SourceError(f"{where}: {each.attention} is no attention of this model")
        blocks = lost.setdefault(each.attention, [])
        blocks += [Block(each.attention, each.queries, each.keys, head) for head in each.heads]
    try:
        segments = Segments(compression.segments)
        for name, blocks in lost.items():
            model.set_submodule(name, SplitAttention(model.get_submodule(name), segments, blocks))
    except RecipeError as error:
        raise SourceError(f"{where}: {error}") from error


def linear_of(shape: LinearShape, has_bias: bool) -> nn.Module:
    """A linear of a shape, or the two that factorise it, with uninitialised weights."""
    if shape.rank is None:
        return _empty(shape.inputs, shape.outputs, has_bias)
    return nn.Sequential(_empty(shape.inputs, shape.rank, False), _empty(shape.rank, shape.outputs, has_bias))


def shape_of(child: nn.Module) -> LinearShape | None:
    """The shape of a linear, or of two that stand for one; None for any other module."""
    if isinstance(child, nn.Linear):
        return LinearShape(child.in_features, child.out_features)
    if isinstance(child, nn.Sequential) and len(child) == 2:
        first, second = child
        if isinstance(first, nn.Linear) and isinstance(second, nn.Linear) and first.bias is None:
            return LinearShape(first.in_features, second.out_features, first.out_features)
    return None


def compression_of(model: nn.Module, original: nn.Module) -> Compression:
    """The differences between a compressed model's shapes and those that config.json describes.

    Raises:
        SourceError: something has become what compression.json cannot say.
    """
    linears, convolutions, channels = {}, {}, {}
    for name, child in original.named_modules():
        if next(child.parameters(recurse=False), None) is None:
            continue  # a split attention has not all of the parts without weights
        now = model.get_submodule(name)
        if isinstance(child, nn.Linear):
            shape = shape_of(now)
            if shape is None:
                raise _unsayable(name)
            if shape != shape_of(child):
                linears[name] = shape
        elif isinstance(child, nn.Conv2d):
            if not isinstance(now, nn.Conv2d) or now.groups != _groups(child, now.in_channels):
                raise _unsayable(name)
            if (now.in_channels, now.out_channels) != (child.in_channels, child.out_channels):
                convolutions[name] = ConvolutionShape(now.in_channels, now.out_channels)
        else:
            channels.update(_channels(name, child, now))
    split = [child for child in model.modules() if isinstance(child, SplitAttention)]
    gone: dict[tuple[str, str, str], list[int]] = {}
    for block in removed_blocks(model):
        gone.setdefault((block.attention, block.queries, block.keys), []).append(block.head)
    return Compression(
        linears=linears,
        convolutions=convolutions,
        channels=channels,
        segments=dict(split[0].segments.lengths) if split else {},
        removed=tuple(RemovedBlocks(*which, tuple(sorted(heads))) for which, heads in gone.items()),
    )


def _channels(name: str, before: nn.Module, now: nn.Module) -> dict[str, int]:
    """The new lengths of a norm, or of a module's own parameters, by name."""
    found = {}
    for inner, old in before.named_parameters(recurse=False):
        new = now.get_parameter(inner)
        if new.shape == old.shape:
            continue
        path = f"{name}.{inner}".removeprefix(".")
        if old.ndim != 1 or new.ndim != 1:
            raise _unsayable(path)
        found[name if isinstance(before, _NORMS) else path] = len(new)
    return found


def _unsayable(name: str) -> SourceError:
    return SourceError(f"{name} has become something that {COMPRESSION_FILE} cannot say")


def _reshape_convolution_(model: nn.Module, name: str, shape: ConvolutionShape, where: Path) -> None:
    child = _child(model, name)
    if not isinstance(child, nn.Conv2d):
        raise SourceError(f"{where / COMPRESSION_FILE}: {name} is no convolution of this model")
    groups = _groups(child, shape.inputs)
    if shape.inputs % groups or shape.outputs % groups:
        raise SourceError(
            f"{where / COMPRESSION_FILE}: {name} has {groups} groups, which do not divide {shape.inputs} "
            f"channels that go in and {shape.outputs} that come out"
        )
    child.in_channels, child.out_channels, child.groups = shape.inputs, shape.outputs, groups
    kernel = child.weight.shape[2:]
    child.weight = nn.Parameter(torch.empty(shape.outputs, shape.inputs // groups, *kernel))
    if child.bias is not None:
        child.bias = nn.Parameter(torch.empty(shape.outputs))


def _groups(before: nn.Conv2d, inputs: int) -> int:
    """The groups of a convolution when it has so many inputs: of a depthwise one as many."""
    return inputs if before.groups == before.in_channels > 1 else before.groups


def _reshape_channels_(model: nn.Module, name: str, count: int, where: Path) -> None:
    child = _child(model, name)
    if isinstance(child, nn.LayerNorm) and len(child.normalized_shape) == 1:
        child.normalized_shape = (count,)
    elif isinstance(child, nn.BatchNorm2d):
        child.num_features = count
    elif child is None and _is_vector(model, name):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Parameter(torch.empty(count)))
        return
    else:
        raise SourceError(f"{where / COMPRESSION_FILE}: {name} is neither a norm nor a vector of this model")
    for inner, _ in [*child.named_parameters(recurse=False)]:
        setattr(child, inner, nn.Parameter(torch.empty(count)))
    for inner, value in [*child.named_buffers(recurse=False)]:
        if value.ndim == 1:
            setattr(child, inner, torch.empty(count))


def _child(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _is_vector(model: nn.Module, name: str) -> bool:
    """Whether a name is of a parameter of one axis that is no weight or bias of a layer or norm."""
    parent = _child(model, name.rpartition(".")[0])
    if parent is None or isinstance(parent, (nn.Linear, nn.Conv2d, *_NORMS)):
        return False
    own = dict(parent.named_parameters(recurse=False)).get(name.rpartition(".")[2])
    return own is not None and own.ndim == 1


def _empty(inputs: int, outputs: int, has_bias: bool) -> nn.Linear:
    made = skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, inputs, outputs, bias=has_bias, device=torch.get_default_device()
    )
    assert isinstance(made, nn.Linear)
    return made
