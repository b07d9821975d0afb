"""compression.json: the shapes of a compressed checkpoint that its config.json cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from torch import nn
from torch.nn.utils import skip_init

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families.blocks import Attention, attentions, set_head_count_
from pocketvl.families.checkpoint import read_json
from pocketvl.families.segments import Segments
from pocketvl.families.split_attention import Block, SplitAttention, removed_blocks

COMPRESSION_FILE = "compression.json"
SCHEMA_VERSION = 1


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
class RemovedBlocks:
    """What some heads of an attention no longer do: one segment's queries do not read another's keys.

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
    """What differs from the model that config.json describes.

    Attributes:
        linears: by their names in the model, those of another shape.
        segments: of a fusion model's sequence, in tokens, by which attentions are split.
        removed: cross-modal blocks that are gone.
        schema_version: of the JSON.
    """

    linears: Mapping[str, LinearShape] = field(default_factory=dict)
    segments: Mapping[str, int] = field(default_factory=dict)
    removed: tuple[RemovedBlocks, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Writes compression.json, or removes it where nothing differs."""
        path = folder / COMPRESSION_FILE
        if self.linears or self.removed:
            told = {name: value for name, value in asdict(self).items() if value or name == "linears"}
            path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def read_compression(folder: Path) -> Compression:
    """Reads compression.json; without one, nothing differs.

    Raises:
        SourceError: it cannot be read, is of another version or says what makes no sense.
    """
    path = folder / COMPRESSION_FILE
    if not path.exists():
        return Compression()
    stored = read_json(path)
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise SourceError(
            f"{path} is of version {stored.get('schema_version')!r}, and {SCHEMA_VERSION} is known here"
        )
    try:
        found = TypeAdapter(Compression).validate_json(json.dumps(stored))  # strict, but for JSON
    except ValidationError as error:
        first = error.errors()[0]
        raise SourceError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for name, shape in found.linears.items():
        if min(shape.inputs, shape.outputs, 1 if shape.rank is None else shape.rank) < 1:
            raise SourceError(f"{path}: {name} has a size below 1")
    return found


def reshape_(model: nn.Module, compression: Compression, where: Path) -> None:
    """Gives a model that was built from config.json the shapes of its compressed weights.

    Args:
        model: changed in place; what its new linears hold is to be loaded.
        compression: the shapes.
        where: the folder, for messages.

    Raises:
        SourceError: the model has no such linear.
    """
    heads = attentions(model)
    for name, shape in compression.linears.items():
        try:
            child = model.get_submodule(name)
        except AttributeError:
            child = None
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
    """Splits attentions again, whose linears may be two of a lower rank by now."""
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
    """A linear of a shape, or the two that stand for one, with weights that mean nothing yet."""
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
    """What a compressed model's shapes differ in from those of the model that config.json describes.

    Raises:
        SourceError: a linear has become neither a smaller one nor two.
    """
    found = {}
    for name, child in original.named_modules():
        if isinstance(child, nn.Linear):
            shape = shape_of(model.get_submodule(name))
            if shape is None:
                raise SourceError(f"{name} has become something that {COMPRESSION_FILE} cannot say")
            if shape != shape_of(child):
                found[name] = shape
    split = [child for child in model.modules() if isinstance(child, SplitAttention)]
    segments = dict(split[0].segments.lengths) if split else {}
    gone: dict[tuple[str, str, str], list[int]] = {}
    for block in removed_blocks(model):
        gone.setdefault((block.attention, block.queries, block.keys), []).append(block.head)
    return Compression(
        found, segments, tuple(RemovedBlocks(*which, tuple(sorted(heads))) for which, heads in gone.items())
    )


def _empty(inputs: int, outputs: int, has_bias: bool) -> nn.Linear:
    made = skip_init(nn.Linear, inputs, outputs, bias=has_bias)  # type: ignore[no-untyped-call]
    assert isinstance(made, nn.Linear)
    return made
