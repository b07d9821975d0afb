"""Run torch and the variants on a dataset; measure latency and memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.data.dataset import Dataset
from pocketvl.families import family_of
from pocketvl.pipelines.stages.components import TORCH, check_source, this_machine
from pocketvl.pipelines.stages.training import CURVES_FILE
from pocketvl.stage import Inputs, Stage
from pocketvl.tasks import TASK_FILE, load_task, save_task, task_class, task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.outputs import OUTPUTS_FILE, load_outputs, save_outputs
from pocketvl_runtime.schema import decode, dump_json, parse_json

if TYPE_CHECKING:
    from pocketvl.evaluate.compare import Comparison

BENCH_FILE = "bench.json"
COMPARISON_FILE = "comparison.json"
GOLDEN_OUTPUTS_FILE = "golden.npz"
NOTES_FILE = "notes.json"
_MOST_BYTES = 2_500_000_000  # of memory that variants which are timed in turns may take


@dataclass(frozen=True)
class RunReference(Stage):
    """Outputs of torch in fp32 on a dataset, and notes on how the model was read."""

    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "run torch fp32"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        family, dataset = family_of(source["source"]), Dataset.open(source["data"])
        dataset.media(family.modality)
        task_class(family).check(dataset)

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint
        from pocketvl.tasks.torch_runner import TorchRunner

        opened = open_checkpoint(source["source"])
        task = task_of(opened.contract, opened)
        runner = TorchRunner(opened.components, Encoder.of_contract(opened.contract), padded=False)
        outputs = task.outputs(runner, Dataset.open(source["data"]), source.progress)
        save_task(out / TASK_FILE, task)
        save_outputs(out / OUTPUTS_FILE, outputs)
        (out / NOTES_FILE).write_text(json.dumps(opened.contract.notes), encoding="utf-8")
        if (source["source"] / CURVES_FILE).is_file():
            shutil.copyfile(source["source"] / CURVES_FILE, out / CURVES_FILE)


@dataclass(frozen=True)
class RunVariant(Stage):
    """Outputs of one variant of a bundle on a dataset and on its golden pack, through the runtime.

    Attributes:
        reference: of the checkpoint that the bundle was exported from, on the same dataset; says what to ask.
        bundle: holds the variant.
        data: a dataset folder.
        variant: its name.
        most: pictures or sounds, and texts, where parity alone is asked; None: all.
    """

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "pillow", "tokenizers", "numpy")

    reference: RunReference
    bundle: Stage | Path
    data: Path
    variant: str
    most: int | None = None

    @property
    def title(self) -> str:
        return f"run {self.variant}"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.pipelines.bundle import golden_outputs
        from pocketvl.tasks.bundle_runner import BundleRunner
        from pocketvl_runtime.bundle import Bundle

        task, bundle = load_task(source["reference"] / TASK_FILE), Bundle.open(source["bundle"])
        runner = BundleRunner(bundle, self.variant)
        found = task.outputs(runner, Dataset.open(source["data"]), source.progress, self.most)
        save_outputs(out / OUTPUTS_FILE, found)
        save_outputs(out / GOLDEN_OUTPUTS_FILE, golden_outputs(bundle, task, runner))


@dataclass(frozen=True)
class CompareVariant(Stage):
    """A variant's metrics and parity beside torch's.

    Attributes:
        reference: torch's outputs.
        variant: its own.
        data: the dataset of both.
        is_task_data: whether answers are measured on the dataset, or parity alone.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    reference: RunReference
    variant: RunVariant
    data: Path
    is_task_data: bool

    @property
    def title(self) -> str:
        return f"compare {self.variant.variant}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.evaluate.compare import compare

        task = load_task(source["reference"] / TASK_FILE)
        reference, variant = (load_outputs(source[name] / OUTPUTS_FILE) for name in ("reference", "variant"))
        dataset = Dataset.open(source["data"]) if self.is_task_data else None
        comparison = compare(task, reference, variant, dataset)
        (out / COMPARISON_FILE).write_text(dump_json(comparison), encoding="utf-8")


def read_comparison(folder: Path) -> Comparison:
    """What `CompareVariant` found."""
    from pocketvl.evaluate.compare import Comparison

    path = folder / COMPARISON_FILE
    return decode(Comparison, parse_json(path.read_bytes(), path.name), path.name)


@dataclass(frozen=True)
class MeasureLatency(Stage):
    """Latency of all variants, interleaved where memory allows, and the peak memory of each alone.

    Attributes:
        bundle: holds the variants.
        variants: their names.
        threads: counts of threads.
        runs: of each variant at each thread count.
        most_seconds: that these may take together; large models are run less often (`pocketvl profile` is
            for those who want more).
    """

    version: ClassVar[int] = 7
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "pillow", "tokenizers", "numpy")

    bundle: Stage | Path
    variants: tuple[str, ...]
    threads: tuple[int, ...] = (1, 2)
    runs: int = 30
    most_seconds: float = 10.0

    @property
    def title(self) -> str:
        return "measure latency and memory"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.devices.local import LocalDevice
        from pocketvl.devices.profiling import ProfileSettings, profile

        settings = ProfileSettings(
            self.variants,
            self.threads,
            self.runs,
            starts=1,
            most_seconds=self.most_seconds,
            most_bytes=_MOST_BYTES,
        )
        with LocalDevice(source["bundle"]) as device:
            result = profile(device, settings, source.progress)
        (out / BENCH_FILE).write_text(result.to_json(), encoding="utf-8")
