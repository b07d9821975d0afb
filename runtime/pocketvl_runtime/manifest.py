"""What a bundle says of itself: manifest.json as checked, frozen types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pocketvl_runtime.errors import BundleError, quoted, shortened
from pocketvl_runtime.files import read_file
from pocketvl_runtime.schema import decode, dump_json, parse_json

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"

MAX_PIXELS = 89_000_000
"""No picture may have more, neither one that is handed in nor one that preprocessing makes."""

MAX_JSON_BYTES = 16_000_000
"""A larger manifest or golden pack is not read."""

MAX_TOKENIZER_BYTES = 40_000_000
"""A larger tokenizer is not read; those of 256,000 tokens have 35 MB."""

MAX_GRAPH_BYTES = 2**31 - 1
"""A larger graph is not read: neither protobuf nor a FlatBuffer, which graphs are, can be."""

MAX_TOKEN_ID = 2**31 - 1
"""Ids travel as int32."""

_MAX_LENGTH = 65_536
_MAX_NAME_CHARS = 255
_MAX_TEMPLATE_CHARS = 1_000
_MAX_LABEL_CHARS = 1_000
_MAX_LABELS_CHARS = 4_000_000  # of all labels, each in the template
_MAX_LABELS_TOKENS = 2**26  # of all labels, padding included
_MAX_LOGIT_SCALE = 1e9
_FLOATS = ("float32", "float16")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Role(StrEnum):
    """What a graph does."""

    IMAGE_ENCODER = "image_encoder"
    TEXT_ENCODER = "text_encoder"
    FUSION = "fusion"
    DECODER_PREFILL = "decoder_prefill"
    DECODER_STEP = "decoder_step"


class Engine(StrEnum):
    """What runs a graph."""

    ONNX = "onnx"
    TFLITE = "tflite"


class Precision(StrEnum):
    """What a graph's weights and activations are held in; int8 is static, int8dyn and int4 dynamic.

    Mixed: layers of several widths, as a search chose them.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT8DYN = "int8dyn"
    INT4 = "int4"
    MIXED = "mixed"

    @property
    def multiplies_integers(self) -> bool:
        """Whether an engine may multiply 8-bit integers in such a graph."""
        return self not in (Precision.FP32, Precision.FP16)


class Status(StrEnum):
    """Whether a variant passed the gate."""

    ACCEPTED = "accepted"
    EXPERIMENTAL = "experimental"


class ResizeMode(StrEnum):
    """`shortest_edge` keeps the aspect ratio; `exact` stretches to height x width."""

    SHORTEST_EDGE = "shortest_edge"
    EXACT = "exact"


def variant_name(engine: Engine, precision: Precision) -> str:
    """The name of a variant: `<engine>-<precision>`."""
    return f"{engine.value}-{precision.value}"


def check_relative_path(path: str) -> str:
    """Returns `path` if it is a relative POSIX path that stays inside the bundle.

    Raises:
        BundleError: it is empty, absolute, holds a backslash, a drive, ".." or other odd parts.
    """
    pure = PurePosixPath(path)
    odd = not pure.parts or "\\" in path or ":" in path or "\0" in path or pure.is_absolute()
    if odd or str(pure) != path or any(part in (".", "..") for part in pure.parts):
        raise BundleError(f"path {quoted(path)} does not stay inside the bundle; do not use this bundle")
    return path


@dataclass(frozen=True)
class PreprocessSpec:
    """How a picture becomes pixels, and what the image graph itself then does to them.

    Attributes:
        resize_mode: with `shortest_edge` both resize sizes are that edge.
        resize_height, resize_width: pixels.
        crop_height, crop_width: centre crop in pixels, both or neither.
        resample: "bicubic" (antialiased), the only one there is.
        mean, std, rescale: applied inside the image graph: `(pixel * rescale - mean) / std` per channel.
    """

    resize_mode: ResizeMode
    resize_height: int
    resize_width: int
    crop_height: int | None
    crop_width: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float
    resample: str = "bicubic"

    def __post_init__(self) -> None:
        sizes = [self.resize_height, self.resize_width, self.crop_height, self.crop_width]
        if any(size is not None and size < 1 for size in sizes):
            raise BundleError(f"resize and crop sizes must be at least 1, not {quoted(sizes)}")
        if max(self.resize_height * self.resize_width, self.height * self.width) > MAX_PIXELS:
            raise BundleError(f"resize and crop sizes {quoted(sizes)} make more than {MAX_PIXELS} pixels")
        if (self.crop_height is None) != (self.crop_width is None):
            raise BundleError("crop_height and crop_width go together")
        if self.resize_mode is ResizeMode.SHORTEST_EDGE:
            if self.resize_height != self.resize_width:
                raise BundleError("with shortest_edge, resize_height and resize_width are the same edge")
            if self.crop_height is None:
                raise BundleError("with shortest_edge a crop is needed, or the graph's input size would vary")
        if self.resample != "bicubic":
            raise BundleError(f"resample {quoted(self.resample)} is not known; known is 'bicubic'")
        if any(value == 0 for value in self.std):
            raise BundleError("std must not be 0")

    @property
    def height(self) -> int:
        """Height in pixels of what the image graph takes."""
        return self.resize_height if self.crop_height is None else self.crop_height

    @property
    def width(self) -> int:
        """Width in pixels of what the image graph takes."""
        return self.resize_width if self.crop_width is None else self.crop_width


@dataclass(frozen=True)
class TokenizerSpec:
    """How a text becomes ids: padded with `pad_id`, or cut, to `length` (T) tokens, specials included."""

    length: int
    pad_id: int
    needs_mask: bool
    file: str = TOKENIZER_FILE

    def __post_init__(self) -> None:
        if not 1 <= self.length <= _MAX_LENGTH:
            raise BundleError(f"length {quoted(self.length)} must be 1 to {_MAX_LENGTH}")
        if not 0 <= self.pad_id <= MAX_TOKEN_ID:
            raise BundleError(f"pad_id {quoted(self.pad_id)} must be 0 to {MAX_TOKEN_ID}")
        check_relative_path(self.file)


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a graph's input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One graph file and the contract of its tensors."""

    role: Role
    engine: Engine
    precision: Precision
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        check_relative_path(self.file)
        if not self.inputs or not self.outputs:
            raise BundleError("a graph has at least one input and one output")

    @property
    def graph_id(self) -> str:
        """The file name without its folder."""
        return PurePosixPath(self.file).name


@dataclass(frozen=True)
class Comparable:
    """A space whose vectors may be compared with a variant's, and how much that loses.

    Attributes:
        space: embedding-space id.
        centred_cosine_median: per role, median mean-centred cosine of this variant's vectors to that space's.
    """

    space: str
    centred_cosine_median: Mapping[Role, float]


@dataclass(frozen=True)
class VariantSpec:
    """A set of graphs that answer together."""

    engine: Engine
    precision: Precision
    status: Status
    graphs: Mapping[Role, str]
    comparable: tuple[Comparable, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """Checksum (lower-case hex) and size in bytes of a file in the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or self.bytes < 0:
            raise BundleError("sha256 must be 64 lower-case hex digits and bytes not negative")


@dataclass(frozen=True)
class Manifest:
    """manifest.json. The probability of match and classify is `softmax(logit_scale * similarity)`."""

    name: str
    family: str
    tasks: tuple[str, ...]
    space: str
    embedding_dim: int
    logit_scale: float
    graphs: Mapping[str, GraphSpec]
    variants: Mapping[str, VariantSpec]
    preprocess: PreprocessSpec
    tokenizer: TokenizerSpec
    labels: tuple[str, ...]
    label_template: str
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, object]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check_version(self.schema_version)
        for key, text in {"name": self.name, "family": self.family, "space": self.space}.items():
            if len(text) > _MAX_NAME_CHARS:
                raise BundleError(
                    f"{key} has {len(text)} characters, and at most {_MAX_NAME_CHARS} may stand"
                )
        if self.embedding_dim < 1:
            raise BundleError(f"embedding_dim must be at least 1, not {quoted(self.embedding_dim)}")
        if not 0 < self.logit_scale <= _MAX_LOGIT_SCALE:
            raise BundleError(f"logit_scale {self.logit_scale} must be above 0, at most {_MAX_LOGIT_SCALE:g}")
        _check_labels(self.labels, self.label_template, self.tokenizer.length)
        for path in self.files:
            check_relative_path(path)
        _check_tokenizer_file(self.tokenizer.file, self.files)
        for graph_id, graph in self.graphs.items():
            _check_graph(graph_id, graph, self.files)
            _check_encoder(graph, self)
        for name, variant in self.variants.items():
            _check_variant(name, variant, self.graphs)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST_FILE) -> Manifest:
        """Parses and checks a manifest.

        Raises:
            BundleError: not JSON, of a schema version this runtime does not know, or not valid; the message
                names `where` and the key path.
        """
        value = parse_json(text, where)
        if isinstance(value, dict):
            if "schema_version" not in value:
                raise BundleError(f"{where}: schema_version is missing")
            _check_version(value["schema_version"], f"{where}: ")
        return decode(cls, value, where)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads and checks a manifest file.

        Raises:
            BundleError: the file cannot be read or is not valid.
        """
        try:
            text = read_file(path, MAX_JSON_BYTES)
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist; is {path.parent} a bundle?") from error
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        return cls.from_json(text, str(path))

    def to_json(self) -> str:
        """The manifest as text: sorted keys, indent 1, trailing newline; same manifest, same text."""
        return dump_json(self)


def _check_version(version: object, where: str = "") -> None:
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{where}schema_version is {quoted(version)}, and this runtime knows only {SCHEMA_VERSION}; "
            "install the pocketvl-runtime that the bundle was made for, or export the bundle again"
        )


def _check_labels(labels: tuple[str, ...], template: str, length: int) -> None:
    """Refuses labels that would fill the memory: whoever asks for none of his own is asking for these."""
    if "{label}" not in template:
        raise BundleError("label_template must hold {label}")
    if len(template) > _MAX_TEMPLATE_CHARS:
        raise BundleError(f"label_template has more than {_MAX_TEMPLATE_CHARS} characters")
    if any(len(label) > _MAX_LABEL_CHARS for label in labels):
        raise BundleError(f"labels: one has more than {_MAX_LABEL_CHARS} characters")
    chars = len(labels) * len(template) + template.count("{label}") * sum(map(len, labels))
    if chars > _MAX_LABELS_CHARS or len(labels) * length > _MAX_LABELS_TOKENS:
        raise BundleError(
            f"labels: {len(labels)} in the template have {chars} characters and {len(labels) * length} "
            f"tokens, and at most {_MAX_LABELS_CHARS} and {_MAX_LABELS_TOKENS} are read"
        )


def _check_tokenizer_file(path: str, files: Mapping[str, FileEntry]) -> None:
    if path not in files:
        raise BundleError(f"tokenizer.file {quoted(path)} is not among files")
    if files[path].bytes > MAX_TOKENIZER_BYTES:
        size = quoted(files[path].bytes)
        raise BundleError(f"files.{path} has {size} bytes, and at most {MAX_TOKENIZER_BYTES} are read")


def _check_graph(graph_id: str, graph: GraphSpec, files: Mapping[str, FileEntry]) -> None:
    if graph.graph_id != graph_id:
        at = f"graphs.{shortened(graph_id, 100)}.file"
        raise BundleError(f"{at} is {quoted(graph.file)}, whose name is not the graph's id")
    if graph.file not in files:
        raise BundleError(f"graphs.{shortened(graph_id, 100)}.file {quoted(graph.file)} is not among files")


def _check_encoder(graph: GraphSpec, manifest: Manifest) -> None:
    """Holds an encoder against what preprocessing and the tokenizer make, and the embedding's length."""
    spec, text = manifest.preprocess, manifest.tokenizer
    ids = TensorSpec("ids", "int32", (1, text.length))
    wanted = {
        Role.IMAGE_ENCODER: {TensorSpec("pixels", "uint8", (1, spec.height, spec.width, 3))},
        Role.TEXT_ENCODER: {ids, replace(ids, name="mask")} if text.needs_mask else {ids},
    }.get(graph.role)
    if wanted is None:
        return
    where = f"graphs.{shortened(graph.graph_id, 100)}"
    if len(graph.inputs) != len(wanted) or set(graph.inputs) != wanted:
        raise BundleError(f"{where}: its inputs are {_told(graph.inputs)}, and {_told(wanted)} is wanted")
    shape = (1, manifest.embedding_dim)
    if [tensor.shape for tensor in graph.outputs] != [shape] or graph.outputs[0].dtype not in _FLOATS:
        raise BundleError(
            f"{where}: its outputs are {_told(graph.outputs)}, and one float {list(shape)} is wanted"
        )


def _told(tensors: Iterable[TensorSpec]) -> str:
    found = ", ".join(sorted(f"{tensor.name!r} {tensor.dtype} {list(tensor.shape)}" for tensor in tensors))
    return shortened(found, 100)


def _check_variant(name: str, variant: VariantSpec, graphs: Mapping[str, GraphSpec]) -> None:
    expected = variant_name(variant.engine, variant.precision)
    if name != expected:
        found = shortened(name, 100)
        raise BundleError(f"variants.{found} has the engine and precision of {expected!r}")
    for role, graph_id in variant.graphs.items():
        where = f"variants.{name}.graphs.{role.value}"
        graph = graphs.get(graph_id)
        if graph is None:
            known = quoted(sorted(graphs))
            raise BundleError(f"{where} names graph {quoted(graph_id)}, which is not among graphs {known}")
        if (graph.role, graph.engine, graph.precision) != (role, variant.engine, variant.precision):
            raise BundleError(
                f"{where} names graph {quoted(graph_id)}, which is a {graph.role.value} for "
                f"{graph.engine.value} in {graph.precision.value}"
            )
