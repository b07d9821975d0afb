"""The stages of an export: each wraps plain functions of the packages below."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError, SourceError
from pocketvl.recipes.bundle import write_bundle
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.isa import instruction_set
from pocketvl_runtime.manifest import Engine, PreprocessSpec, Role, TokenizerSpec
from pocketvl_runtime.schema import dump_json
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

EMBEDDINGS_FILE = "embeddings.npz"
BENCH_FILE = "bench.json"
MEMORY_FILE = "memory.json"
NOTES_FILE = "notes.json"
_TORCH = ("torch", "transformers", "pillow", "tokenizers", "numpy")
_MOST_TEXTS = 1024
_INPUT_NAMES = {Role.IMAGE_ENCODER: "pixels", Role.TEXT_ENCODER: "ids"}


def check_source(folder: Path) -> None:
    """Raises SourceError where a folder cannot be a checkpoint."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is not a Hugging Face model folder: it has no config.json")


def this_machine() -> Mapping[str, str]:
    """What measured or floating-point results depend on beside their inputs."""
    return {"isa": instruction_set(), "processors": str(os.cpu_count())}


@dataclass(frozen=True)
class GraphStage(Stage):
    """A stage whose result is one graph file, of ops that every engine runs."""

    @property
    def file(self) -> str:
        """The name of the graph in the result."""
        raise NotImplementedError

    def ensures(self, source: Inputs, result: Path) -> None:
        from pocketvl.lower.ops import check_ops

        check_ops(result / self.file)


@dataclass(frozen=True)
class LowerGraph(GraphStage):
    """One tower of a checkpoint as an fp32 graph of one engine, its LayerNorms folded into the linears."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = (
        *_TORCH,
        "onnx",
        "onnxscript",
        "onnx-ir",
        "onnxsim",
        "litert-torch",
        "litert-converter",
        "ai-edge-litert",
    )

    source: Path
    role: Role
    engine: Engine

    @property
    def title(self) -> str:
        return f"lower {self.role.value} to {self.engine.value}"

    @property
    def file(self) -> str:
        return f"{self.role.value}.fp32.{self.engine.value}"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.lower.to_onnx import export_onnx
        from pocketvl.lower.to_tflite import export_tflite

        module, example = _folded_tower(source["source"], self.role)
        export = export_onnx if self.engine is Engine.ONNX else export_tflite
        export(module, example, _INPUT_NAMES[self.role], out / self.file)


def _folded_tower(folder: Path, role: Role) -> tuple[nn.Module, torch.Tensor]:
    """A tower as it is quantized and lowered, and an input of batch 1 for it."""
    import torch

    from pocketvl.families import open_source
    from pocketvl.quantize.fold import fold_layer_norms_

    opened = open_source(folder)
    if role is Role.IMAGE_ENCODER:
        module = opened.image_encoder
        size = (1, opened.preprocess.height, opened.preprocess.width, 3)
        example = torch.zeros(size, dtype=torch.uint8)
    else:
        module = opened.text_encoder
        example = torch.full((1, opened.tokenizer.length), opened.tokenizer.pad_id, dtype=torch.int32)
    fold_layer_norms_(module, example)
    return module, example


@dataclass(frozen=True)
class CastFp16(GraphStage):
    """A TFLite graph with its weights in fp16."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("ai-edge-quantizer", "ai-edge-litert")

    graph: LowerGraph

    @property
    def title(self) -> str:
        return f"cast {self.graph.role.value} to fp16"

    @property
    def file(self) -> str:
        return f"{self.graph.role.value}.fp16.tflite"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.lower.to_tflite import cast_fp16_tflite

        cast_fp16_tflite(source["graph"] / self.graph.file, out / self.file)


@dataclass(frozen=True)
class CalibrationFeeds(Stage):
    """What calibration shows the graphs: the pixels and ids of a dataset, made as on the device."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    calibration: Path
    most_texts: int = _MOST_TEXTS

    def requires(self, source: Inputs) -> None:
        dataset = Dataset.open(source["calibration"])
        if not any(sample.captions for sample in dataset.samples):
            raise DataError(f"{dataset.root}: calibration needs captions, and no sample has one")

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_source

        opened = open_source(source["source"])
        dataset = Dataset.open(source["calibration"])
        texts = list(dict.fromkeys(t for s in dataset.samples for t in (*s.captions, *s.negatives)))
        chosen = np.linspace(0, len(texts) - 1, min(len(texts), self.most_texts)).round().astype(int)
        _write_pixels(out / "pixels.npy", dataset, opened.preprocess, source)
        np.save(out / "ids.npy", _ids([texts[k] for k in chosen], opened.tokenizer_json, opened.tokenizer))


def _write_pixels(path: Path, dataset: Dataset, spec: PreprocessSpec, source: Inputs) -> None:
    shape = (len(dataset), spec.height, spec.width, 3)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for place, sample in enumerate(dataset.samples):
        rows[place] = preprocess(open_image(sample.image), spec)
        source.progress(place + 1, len(dataset), "preprocessing")
    rows.flush()


def _ids(texts: list[str], tokenizer_json: bytes, spec: TokenizerSpec) -> npt.NDArray[np.int32]:
    return Tokenizer(tokenizer_json, spec).encode(texts).ids


@dataclass(frozen=True)
class QuantizeTower(Stage):
    """One tower's integers in static int8, with ranges seen on calibration data; both engines get them."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    role: Role
    feeds: CalibrationFeeds

    @property
    def title(self) -> str:
        return f"quantize {self.role.value}"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.quantize.calibrate import observe_layers
        from pocketvl.quantize.structure import token_tables
        from pocketvl.quantize.tower import quantize_tower, static_spec

        module, example = _folded_tower(source["source"], self.role)
        feeds = _Feeds(source["feeds"] / f"{_INPUT_NAMES[self.role]}.npy")
        ranges = observe_layers(module, feeds, source.progress)
        quantize_tower(module, static_spec(module, token_tables(module, example)), ranges).save(out)


class _Feeds:
    """The rows of a file of `CalibrationFeeds`, one sample each; the file is never in memory as a whole."""

    def __init__(self, path: Path) -> None:
        self._rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[npt.NDArray[np.generic]]:
        for row in self._rows:
            yield np.array(row[None])


@dataclass(frozen=True)
class LowerInt8(GraphStage):
    """A graph in static int8: the float graph with a tower's integers in it."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnx", "ai-edge-quantizer", "ai-edge-litert", "numpy")

    graph: LowerGraph
    tower: QuantizeTower

    @property
    def title(self) -> str:
        return f"write {self.graph.role.value} in int8 for {self.graph.engine.value}"

    @property
    def file(self) -> str:
        return f"{self.graph.role.value}.int8.{self.graph.engine.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.integers import QuantizedTower
        from pocketvl.lower.int8_onnx import write_int8_onnx
        from pocketvl.lower.int8_tflite import write_int8_tflite

        write = write_int8_onnx if self.graph.engine is Engine.ONNX else write_int8_tflite
        tower = QuantizedTower.load(source["tower"])
        write(source["graph"] / self.graph.file, tower, out / self.file)


@dataclass(frozen=True)
class AssembleBundle(Stage):
    """A whole bundle with every variant in it, not judged yet."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    calibration: Path
    graphs: tuple[GraphStage, ...]
    name_in_bundle: str

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from dataclasses import replace

        from pocketvl.families import open_source

        opened = replace(open_source(source["source"]), name=self.name_in_bundle)
        folders = source.all("graphs")
        paths = [folder / stage.file for folder, stage in zip(folders, self.graphs, strict=True)]
        write_bundle(opened, paths, Dataset.open(source["calibration"]), self.graphs, out)


@dataclass(frozen=True)
class EmbedReference(Stage):
    """The embeddings of a dataset by torch in fp32, and what there is to know of how the model was read."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "embed with torch fp32"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        dataset = Dataset.open(source["data"])
        texts_to_embed(dataset)
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: at least two pictures are needed to compare embeddings")

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.evaluate.embeddings import save_embeddings
        from pocketvl.evaluate.reference import embed_reference
        from pocketvl.families import open_source

        dataset = Dataset.open(source["data"])
        opened = open_source(source["source"])
        embeddings = embed_reference(opened, dataset, texts_to_embed(dataset), source.progress)
        save_embeddings(out / EMBEDDINGS_FILE, embeddings)
        (out / NOTES_FILE).write_text(json.dumps(opened.notes), encoding="utf-8")


@dataclass(frozen=True)
class EmbedVariant(Stage):
    """The embeddings of a dataset by one variant of a bundle, through the runtime."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "pillow", "tokenizers", "numpy")

    bundle: Stage | Path
    data: Path
    variant: str

    @property
    def title(self) -> str:
        return f"embed with {self.variant}"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.evaluate.embeddings import save_embeddings
        from pocketvl.evaluate.variant import embed_variant

        dataset = Dataset.open(source["data"])
        texts = texts_to_embed(dataset)
        embeddings = embed_variant(source["bundle"], self.variant, dataset, texts, source.progress)
        save_embeddings(out / EMBEDDINGS_FILE, embeddings)


@dataclass(frozen=True)
class MeasureLatency(Stage):
    """Latency of all variants, interleaved, and the peak memory of each alone."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "pillow", "tokenizers", "numpy")

    bundle: Stage | Path
    variants: tuple[str, ...]
    threads: tuple[int, ...] = (1, 2)
    runs: int = 60

    @property
    def title(self) -> str:
        return "measure latency and memory"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.evaluate.latency import measure_latency, measure_memory

        report = measure_latency(source["bundle"], self.variants, self.threads, self.runs)
        (out / BENCH_FILE).write_text(dump_json(report), encoding="utf-8")
        memory = measure_memory(source["bundle"], self.variants, source.progress)
        (out / MEMORY_FILE).write_text(json.dumps(memory), encoding="utf-8")


def texts_to_embed(dataset: Dataset) -> tuple[str, ...]:
    """The distinct texts of a dataset that tasks and parity need."""
    from pocketvl.evaluate.tasks import distinct_texts

    texts = distinct_texts(dataset)
    if len(texts) < 2:
        raise DataError(f"{dataset.root}: at least two different captions are needed to compare embeddings")
    return texts
