"""What torch and the variants make of a dataset, how fast they are, and how much memory they take."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.pipelines.stages.towers import TORCH, check_source, this_machine
from pocketvl.pipelines.stages.training import CURVES_FILE
from pocketvl.stage import Inputs, Stage

EMBEDDINGS_FILE = "embeddings.npz"
BENCH_FILE = "bench.json"
NOTES_FILE = "notes.json"


@dataclass(frozen=True)
class EmbedReference(Stage):
    """The embeddings of a dataset by torch in fp32, and what there is to know of how the model was read."""

    version: ClassVar[int] = 6
    tools: ClassVar[tuple[str, ...]] = TORCH

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
        from pocketvl.families import open_checkpoint

        dataset = Dataset.open(source["data"])
        opened = open_checkpoint(source["source"])
        embeddings = embed_reference(opened, dataset, texts_to_embed(dataset), source.progress)
        save_embeddings(out / EMBEDDINGS_FILE, embeddings)
        (out / NOTES_FILE).write_text(json.dumps(opened.contract.notes), encoding="utf-8")
        if (source["source"] / CURVES_FILE).is_file():
            shutil.copyfile(source["source"] / CURVES_FILE, out / CURVES_FILE)


@dataclass(frozen=True)
class EmbedVariant(Stage):
    """The embeddings of a dataset by one variant of a bundle, through the runtime."""

    version: ClassVar[int] = 3
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

    version: ClassVar[int] = 3
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
        from pocketvl.evaluate.latency import measure_latency_and_memory

        result = measure_latency_and_memory(
            source["bundle"], self.variants, self.threads, self.runs, source.progress
        )
        (out / BENCH_FILE).write_text(result.to_json(), encoding="utf-8")


def texts_to_embed(dataset: Dataset) -> tuple[str, ...]:
    """The distinct texts of a dataset that tasks and parity need."""
    from pocketvl.evaluate.tasks import distinct_texts

    texts = distinct_texts(dataset)
    if len(texts) < 2:
        raise DataError(
            f"{dataset.root}: at least two different texts are needed to compare embeddings; give the "
            "samples `captions`, or `label`s of two kinds"
        )
    return texts
