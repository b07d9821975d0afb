"""The stages of an export: each wraps plain functions of the packages below."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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

EMBEDDINGS_FILE = "embeddings.npz"
BENCH_FILE = "bench.json"
MEMORY_FILE = "memory.json"
_TORCH = ("torch", "transformers", "pillow", "tokenizers", "numpy")
_MOST_TEXTS = 1024

Feed = Mapping[str, npt.NDArray[np.generic]]


def check_source(folder: Path) -> None:
    """Raises SourceError where a folder cannot be a checkpoint."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is not a Hugging Face model folder: it has no config.json")


def _this_machine() -> Mapping[str, str]:
    """What measured or floating-point results depend on beside their inputs."""
    return {"isa": instruction_set(), "processors": str(os.cpu_count())}


@dataclass(frozen=True)
class LowerGraph(Stage):
    """One tower of a checkpoint as an fp32 graph of one engine."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (
        *_TORCH,
        "onnx",
        "onnxscript",
        "onnxsim",
        "litert-torch",
        "litert-converter",
    )

    source: Path
    role: Role
    engine: Engine

    @property
    def title(self) -> str:
        return f"lower {self.role.value} to {self.engine.value}"

    @property
    def file(self) -> str:
        """The name of the graph in the result."""
        return f"{self.role.value}.fp32.{self.engine.value}"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])

    def run(self, source: Inputs, out: Path) -> None:
        import torch

        from pocketvl.families import open_source
        from pocketvl.lower.to_onnx import export_onnx
        from pocketvl.lower.to_tflite import export_tflite

        opened = open_source(source["source"])
        export = export_onnx if self.engine is Engine.ONNX else export_tflite
        if self.role is Role.IMAGE_ENCODER:
            size = (1, opened.preprocess.height, opened.preprocess.width, 3)
            export(opened.image_encoder, torch.zeros(size, dtype=torch.uint8), "pixels", out / self.file)
        else:
            ids = torch.full((1, opened.tokenizer.length), opened.tokenizer.pad_id, dtype=torch.int32)
            export(opened.text_encoder, ids, "ids", out / self.file)


@dataclass(frozen=True)
class CastFp16(Stage):
    """A TFLite graph with its weights in fp16."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("ai-edge-quantizer", "ai-edge-litert")

    graph: LowerGraph

    @property
    def title(self) -> str:
        return f"cast {self.graph.role.value} to fp16"

    @property
    def file(self) -> str:
        """The name of the graph in the result."""
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
        np.save(out / "pixels.npy", _pixels(dataset, opened.preprocess, source))
        np.save(out / "ids.npy", _ids([texts[k] for k in chosen], opened.tokenizer_json, opened.tokenizer))


def _pixels(dataset: Dataset, spec: PreprocessSpec, source: Inputs) -> npt.NDArray[np.uint8]:
    rows = []
    for done, sample in enumerate(dataset.samples, start=1):
        rows.append(preprocess(open_image(sample.image), spec))
        source.progress(done, len(dataset), "preprocessing")
    return np.stack(rows)


def _ids(texts: list[str], tokenizer_json: bytes, spec: TokenizerSpec) -> npt.NDArray[np.int32]:
    return Tokenizer(tokenizer_json, spec).encode(texts).ids


@dataclass(frozen=True)
class QuantizeStatic(Stage):
    """A graph in static int8, with ranges seen on calibration data."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (
        "onnx",
        "onnxruntime",
        "ai-edge-quantizer",
        "ai-edge-litert",
        "numpy",
    )

    graph: LowerGraph
    feeds: CalibrationFeeds

    @property
    def title(self) -> str:
        return f"quantize {self.graph.role.value} for {self.graph.engine.value}"

    @property
    def file(self) -> str:
        """The name of the graph in the result."""
        return f"{self.graph.role.value}.int8.{self.graph.engine.value}"

    def environment(self) -> Mapping[str, str]:
        return _this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.quantize.static_onnx import quantize_static_onnx
        from pocketvl.quantize.static_tflite import quantize_static_tflite

        quantize = quantize_static_onnx if self.graph.engine is Engine.ONNX else quantize_static_tflite
        quantize(source["graph"] / self.graph.file, out / self.file, self._feeds(source), source.progress)

    def _feeds(self, source: Inputs) -> Iterator[Feed]:
        name = "pixels" if self.graph.role is Role.IMAGE_ENCODER else "ids"
        for row in np.load(source["feeds"] / f"{name}.npy"):
            yield {name: row[None]}


GraphStage = LowerGraph | CastFp16 | QuantizeStatic


@dataclass(frozen=True)
class AssembleBundle(Stage):
    """A whole bundle with every variant in it, not judged yet."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    calibration: Path
    graphs: tuple[GraphStage, ...]
    name_in_bundle: str

    def environment(self) -> Mapping[str, str]:
        return _this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from dataclasses import replace

        from pocketvl.families import open_source

        opened = replace(open_source(source["source"]), name=self.name_in_bundle)
        folders = source.all("graphs")
        paths = [folder / stage.file for folder, stage in zip(folders, self.graphs, strict=True)]
        write_bundle(opened, paths, Dataset.open(source["calibration"]), self.graphs, out)


@dataclass(frozen=True)
class EmbedReference(Stage):
    """The embeddings of a dataset by torch in fp32."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = _TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "embed with torch fp32"

    def environment(self) -> Mapping[str, str]:
        return _this_machine()

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        Dataset.open(source["data"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.evaluate.embeddings import save_embeddings
        from pocketvl.evaluate.reference import embed_reference
        from pocketvl.families import open_source

        dataset = Dataset.open(source["data"])
        opened = open_source(source["source"])
        embeddings = embed_reference(opened, dataset, texts_to_embed(dataset), source.progress)
        save_embeddings(out / EMBEDDINGS_FILE, embeddings)


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
        return _this_machine()

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

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "pillow", "tokenizers", "numpy")

    bundle: Stage | Path
    variants: tuple[str, ...]
    threads: tuple[int, ...] = (1, 2)
    runs: int = 60

    @property
    def title(self) -> str:
        return "measure latency and memory"

    def environment(self) -> Mapping[str, str]:
        return _this_machine()

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
