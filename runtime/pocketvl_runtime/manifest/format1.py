"""Bundles of format 1, as they were written before components: their JSON turned into that of format 2.

Here and nowhere else stands what that format was. Its manifest carried no checksum of itself, so that its
golden pack repeated what answers follow from; that is compared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from pocketvl_runtime.errors import BundleError, quoted, shortened
from pocketvl_runtime.manifest.checks import Parts
from pocketvl_runtime.manifest.graphs import ComponentGraph, DType, InputPort, OutputPort, PortKind
from pocketvl_runtime.manifest.names import (
    FORMAT,
    Engine,
    Modality,
    Precision,
    Status,
    port_name,
    variant_name,
)
from pocketvl_runtime.manifest.processors import (
    ImageProcessor,
    Normalization,
    Padding,
    ResizeMode,
    TextProcessor,
)
from pocketvl_runtime.manifest.tasks import Activation, ContrastiveTask, Scale
from pocketvl_runtime.manifest.variants import Comparable, FileEntry, VariantFile, VariantSpec
from pocketvl_runtime.manifest.versions import FORMAT_VERSION
from pocketvl_runtime.schema import decode, encode

_VERSION_KEY = "schema_version"
_INPUTS = {
    "pixels": (PortKind.PIXELS, "image"),
    "ids": (PortKind.TOKEN_IDS, "text"),
    "mask": (PortKind.ATTENTION_MASK, "text"),
}


class _Role(StrEnum):
    """What a graph of format 1 does."""

    IMAGE_ENCODER = "image_encoder"
    TEXT_ENCODER = "text_encoder"
    FUSION = "fusion"
    DECODER_PREFILL = "decoder_prefill"
    DECODER_STEP = "decoder_step"


@dataclass(frozen=True)
class _Preprocess:
    resize_mode: ResizeMode
    resize_height: int
    resize_width: int
    crop_height: int | None
    crop_width: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float
    resample: str

    def upgraded(self) -> ImageProcessor:
        if self.resample != "bicubic":
            raise BundleError(f"resample {quoted(self.resample)} is not known; known is 'bicubic'")
        if (self.crop_height is None) != (self.crop_width is None):
            raise BundleError("crop_height and crop_width go together")
        crop = (
            None
            if self.crop_height is None or self.crop_width is None
            else (self.crop_height, self.crop_width)
        )
        size = (self.resize_height, self.resize_width)
        return ImageProcessor.bicubic(
            self.resize_mode, size, crop, Normalization(self.mean, self.std, self.rescale)
        )


@dataclass(frozen=True)
class _Tokenizer:
    length: int
    pad_id: int
    needs_mask: bool
    file: str


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Graph:
    role: _Role
    engine: Engine
    precision: Precision
    file: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]


@dataclass(frozen=True)
class _Variant:
    engine: Engine
    precision: Precision
    status: Status
    graphs: Mapping[_Role, str]
    comparable: tuple[Comparable, ...]


@dataclass(frozen=True)
class _Manifest1:
    name: str
    family: str
    tasks: tuple[str, ...]
    space: str
    embedding_dim: int
    logit_scale: float
    graphs: Mapping[str, _Graph]
    variants: Mapping[str, _Variant]
    preprocess: _Preprocess
    tokenizer: _Tokenizer
    labels: tuple[str, ...]
    label_template: str
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, object]
    schema_version: int

    def upgraded(self) -> dict[str, Any]:
        """The JSON of format 2."""
        text = TextProcessor(self.tokenizer.length, Padding(self.tokenizer.pad_id), file=self.tokenizer.file)
        graphs = self._graphs()
        parts = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model": {
                "name": self.name,
                "family": self.family,
                "modalities": (Modality.IMAGE, Modality.TEXT),
            },
            "processors": {"image": self.preprocess.upgraded(), "text": text},
            "graphs": graphs,
            "variants": {name: self._variant(name, variant) for name, variant in self.variants.items()},
            "tasks": self._tasks(graphs),
            "files": self.files,
            "provenance": self.provenance,
            "extensions": {},
        }
        upgraded: dict[str, Any] = encode(parts)
        return upgraded

    def _graphs(self) -> dict[str, ComponentGraph]:
        found: dict[str, ComponentGraph] = {}
        for graph_id, graph in self.graphs.items():
            where = f"graphs.{shortened(graph_id, 100)}"
            if PurePosixPath(graph.file).name != graph_id:
                raise BundleError(f"{where}.file is {quoted(graph.file)}, whose name is not the graph's id")
            if graph.file not in self.files:
                raise BundleError(f"{where}.file {quoted(graph.file)} is not among files")
            contract = self._contract(where, graph)
            if found.setdefault(graph.role.value, contract) != contract:
                raise BundleError(f"{where}: its tensors are not those of the other graphs of its role")
        return found

    def _contract(self, where: str, graph: _Graph) -> ComponentGraph:
        masked = graph.role is _Role.TEXT_ENCODER and self.tokenizer.needs_mask
        names = {"pixels"} if graph.role is _Role.IMAGE_ENCODER else {"ids", "mask"} if masked else {"ids"}
        if graph.role not in (_Role.IMAGE_ENCODER, _Role.TEXT_ENCODER):
            raise BundleError(f"{where}: format 1 has image and text encoders, and no {graph.role.value}")
        if {tensor.name for tensor in graph.inputs} != names or len(graph.inputs) != len(names):
            found = quoted([tensor.name for tensor in graph.inputs])
            raise BundleError(f"{where}: its inputs are {found}, and {sorted(names)} are wanted")
        if [tensor.shape for tensor in graph.outputs] != [(1, self.embedding_dim)]:
            found = quoted([(tensor.name, tensor.shape) for tensor in graph.outputs])
            raise BundleError(
                f"{where}: its outputs are {found}, and one [1, {self.embedding_dim}] is wanted"
            )
        inputs = (InputPort(t.name, t.dtype, t.shape, *_INPUTS[t.name]) for t in graph.inputs)
        (out,) = graph.outputs
        return ComponentGraph(
            tuple(inputs), (OutputPort(out.name, out.dtype, out.shape, PortKind.EMBEDDING, self.space),)
        )

    def _variant(self, name: str, variant: _Variant) -> VariantSpec:
        files = {}
        for role, graph_id in variant.graphs.items():
            where = f"variants.{shortened(name, 100)}.graphs.{role.value}"
            graph = self.graphs.get(graph_id)
            if graph is None:
                known = quoted(sorted(self.graphs))
                raise BundleError(
                    f"{where} names graph {quoted(graph_id)}, which is not among graphs {known}"
                )
            if (graph.role, graph.engine, graph.precision) != (role, variant.engine, variant.precision):
                raise BundleError(
                    f"{where} names graph {quoted(graph_id)}, which is a {graph.role.value} for "
                    f"{variant_name(graph.engine, graph.precision)}"
                )
            files[role.value] = VariantFile(graph.file)
        return VariantSpec.of(
            variant.engine, variant.precision, variant.status, files, comparable=variant.comparable
        )

    def _tasks(self, graphs: Mapping[str, ComponentGraph]) -> dict[str, ContrastiveTask]:
        if not {"image_encoder", "text_encoder"} <= set(graphs):
            return {}
        first, second = (
            port_name(role.value, graphs[role.value].outputs[0].name)
            for role in (_Role.IMAGE_ENCODER, _Role.TEXT_ENCODER)
        )
        scale = Scale(self.logit_scale, self.logit_scale)
        head = (first, second, scale, 0.0, Activation.SOFTMAX)
        return {
            "match": ContrastiveTask(*head),
            "classify": ContrastiveTask(*head, self.labels, self.label_template),
        }


def is_format1(value: object) -> bool:
    """Whether parsed JSON is a manifest of format 1, of whatever schema version."""
    return isinstance(value, dict) and _VERSION_KEY in value and "format" not in value


def upgrade_manifest(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The JSON of a manifest of format 1 as format 2 has it, without a checksum.

    Raises:
        BundleError: it is of another schema version, or not valid.
    """
    version = value[_VERSION_KEY]
    if version != 1 or isinstance(version, bool):
        raise BundleError(
            f"{where}: {_VERSION_KEY} is {quoted(version)}, and of those this runtime knows only 1; export "
            "the bundle again, or install the pocketvl-runtime that it was made for"
        )
    manifest = decode(_Manifest1, value, where)
    try:
        return manifest.upgraded()
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error


# --- golden packs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    file: str
    pixels: str
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class _Text:
    text: str
    ids: tuple[int, ...]
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class _Scores:
    similarity: tuple[float, ...]
    probability: tuple[float, ...]


@dataclass(frozen=True)
class _Tolerance:
    max_abs: float | None
    cosine_min: float


@dataclass(frozen=True)
class _AnswerTolerance:
    similarity: float
    probability: float
    status: Status


@dataclass(frozen=True)
class _Answers:
    space: str
    logit_scale: float
    labels: tuple[str, ...]
    label_template: str
    match: tuple[_Scores, ...]
    classify: tuple[_Scores, ...]
    tolerance: Mapping[str, _AnswerTolerance]


@dataclass(frozen=True)
class _Golden1:
    images: tuple[_Image, ...]
    texts: tuple[_Text, ...]
    tolerance: Mapping[str, Mapping[_Role, _Tolerance]]
    answers: _Answers | None
    schema_version: int

    def upgraded(self, ports: Mapping[str, str]) -> dict[str, Any]:
        """The JSON of format 2; `ports` are the components' embeddings."""
        answers = self.answers
        rows = {
            _Role.IMAGE_ENCODER: ("image", [image.embedding for image in self.images]),
            _Role.TEXT_ENCODER: ("text", [text.embedding for text in self.texts]),
        }
        return {
            "format": "pocketvl-golden",
            "version": FORMAT_VERSION,
            "inputs": {
                "image": [{"kind": "image", "file": i.file, "pixels": i.pixels} for i in self.images],
                "text": [{"kind": "text", "text": t.text, "ids": list(t.ids)} for t in self.texts],
            },
            "outputs": {
                ports[role.value]: [
                    {"inputs": {source: index}, "shape": [1, len(row)], "values": list(row)}
                    for index, row in enumerate(values)
                ]
                for role, (source, values) in rows.items()
                if role.value in ports
            },
            "answers": {"match": _rows(answers.match), "classify": _rows(answers.classify)}
            if answers
            else None,
            "tolerance": {name: self._tolerance(name, ports) for name in self.tolerance},
        }

    def _tolerance(self, variant: str, ports: Mapping[str, str]) -> dict[str, Any]:
        limits = self.tolerance[variant]
        of_answers = self.answers.tolerance.get(variant) if self.answers else None
        scores = of_answers and {"similarity": of_answers.similarity, "probability": of_answers.probability}
        return {
            "ports": {
                ports[role.value]: encode(limit) for role, limit in limits.items() if role.value in ports
            },
            "answers": {task: scores for task in ("match", "classify") if scores},
        }


def _rows(scores: tuple[_Scores, ...]) -> list[dict[str, Any]]:
    return [{"inputs": {"image": index}, **encode(row)} for index, row in enumerate(scores)]


def upgrade_golden(value: dict[str, Any], where: str, manifest: Parts) -> dict[str, Any]:
    """The JSON of a golden pack of schema version 1, which had no answers, or 2 as format 2 has it.

    Raises:
        BundleError: it is of another schema version, not valid, or was made for another manifest.
    """
    version = value[_VERSION_KEY]
    if version not in (1, 2) or isinstance(version, bool):
        raise BundleError(
            f"{where}: {_VERSION_KEY} is {quoted(version)}, and of those this runtime knows only 1 and 2; "
            "install the pocketvl-runtime that the bundle was made for"
        )
    golden = decode(_Golden1, {"answers": None, **value} if version == 1 else value, where)
    if golden.answers is not None:
        _check_answers(golden.answers, where, manifest)
    ports = {name: port_name(name, graph.outputs[0].name) for name, graph in manifest.graphs.items()}
    return golden.upgraded(ports)


def _check_answers(answers: _Answers, where: str, manifest: Parts) -> None:
    """Holds what answers follow from against the manifest, which no checksum covered."""
    task = manifest.tasks.get("classify")
    spaces = [port.space for graph in manifest.graphs.values() for port in graph.outputs]
    if isinstance(task, ContrastiveTask):
        for key, found, promised in (
            ("space", spaces, [answers.space] * len(spaces)),
            ("logit_scale", task.scale.first, answers.logit_scale),
            ("label_template", task.template, answers.label_template),
            ("labels", task.labels, answers.labels),
        ):
            if found != promised:
                raise BundleError(f"the manifest's {key} is not that of the golden answers in {where}")
    for name, limit in answers.tolerance.items():
        variant = manifest.variants.get(name)
        if variant is not None and variant.status is not limit.status:
            raise BundleError(
                f"{name}: its status is {variant.status.value}, and the gate gave {limit.status.value}"
            )
