"""From a checkpoint to the components that are quantized and lowered, and what calibration shows them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pocketvl.arrays import open_array
from pocketvl.data.dataset import Dataset, Sample
from pocketvl.errors import DataError, SourceError
from pocketvl.families import family_of
from pocketvl.families.base import Component, example_inputs
from pocketvl.families.folders.files import description_files
from pocketvl.network.heads import HeadKind
from pocketvl.network.ports import PortKind
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.isa import instruction_set
from pocketvl_runtime.manifest import ImageProcessor, TextProcessor
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

TORCH = ("torch", "transformers", "pillow", "tokenizers", "numpy", "safetensors")
EQUALIZED_FILE = "equalized.json"
_WEIGHTS = "weights.safetensors"
_MOST_TEXTS = 1024


def check_source(folder: Path) -> None:
    """Raise SourceError where a folder cannot be a checkpoint."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is not a Hugging Face model folder: it has no config.json")


def this_machine() -> Mapping[str, str]:
    """The machine properties that measured or floating-point results depend on."""
    return {"isa": instruction_set(), "processors": str(usable_processors())}


@dataclass(frozen=True)
class CalibrationFeeds(Stage):
    """What calibration shows the components: the pixels and ids of a dataset, made as on the device."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    calibration: Path
    most_texts: int = _MOST_TEXTS

    def requires(self, source: Inputs) -> None:
        calibration_texts(Dataset.open(source["calibration"]))

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import read_contract

        contract = read_contract(source["source"])
        dataset = Dataset.open(source["calibration"])
        texts = calibration_texts(dataset)
        chosen = np.linspace(0, len(texts) - 1, min(len(texts), self.most_texts)).round().astype(int)
        ids = ids_of([texts[k] for k in chosen], contract.tokenizer_json, contract.tokenizer)
        for name, ports in contract.components.items():
            (out / name).mkdir()
            for index, port in enumerate(ports.inputs):
                path = out / name / f"{index}_{port.name}.npy"
                if port.kind is PortKind.PIXELS:
                    write_pixels(path, dataset, contract.preprocess, source)
                else:
                    np.save(path, ids)


def calibration_texts(dataset: Dataset) -> tuple[str, ...]:
    """The distinct texts that a text tower is calibrated with, in the order of first use.

    These are each sample's captions and negatives; where it has none, its label in the template that the
    bundle classifies with. Photos alone give none, and no stand-in is made up: a static grid is as wide as
    what calibration showed, and would then be that of texts that nobody asks.

    Raises:
        DataError: no sample has a caption or a label.
    """
    from pocketvl.tasks.contrastive_metrics import label_prompts

    prompts = label_prompts(dataset)
    texts: dict[str, None] = {}
    for sample in dataset.samples:
        own = (*sample.captions, *sample.negatives)
        if not own and sample.label is not None:
            own = (prompts[sample.label],)
        texts.update(dict.fromkeys(own))
    if not texts:
        raise DataError(
            f"{dataset.root}: the text tower is calibrated with captions or labels, and no sample has any; "
            "give the samples `captions` or a `label`"
        )
    return tuple(texts)


def write_pixels(path: Path, dataset: Dataset, spec: ImageProcessor, source: Inputs) -> None:
    """Write a dataset's pictures as uint8 [N, H, W, 3], preprocessed as on the device."""
    shape = (len(dataset), spec.height, spec.width, 3)
    rows = open_array(path, np.uint8, shape)

    def pixels(sample: Sample) -> npt.NDArray[np.uint8]:
        return preprocess(open_image(sample.image), spec)

    threads = ThreadPoolExecutor(usable_processors())  # Pillow decodes and resizes outside of Python's lock
    try:
        for index, row in enumerate(threads.map(pixels, dataset.samples)):
            rows[index] = row
            source.progress(index + 1, len(dataset), "preprocessing")
    finally:
        threads.shutdown(cancel_futures=True)  # where somebody interrupts, the rest is not read first
    rows.flush()


def ids_of(texts: list[str], tokenizer_json: bytes, spec: TextProcessor) -> npt.NDArray[np.int32]:
    """Token ids [N, T] of texts, as on the device."""
    return Tokenizer(tokenizer_json, spec).encode(texts).ids


Feed: TypeAlias = npt.NDArray[np.generic] | tuple[npt.NDArray[np.generic], ...]
"""A component's input, or all of its inputs."""


class Feeds:
    """The inputs of one component out of a result of `CalibrationFeeds`; never in memory as a whole."""

    def __init__(self, folder: Path, component: str, batch: int = 1, most: int | None = None) -> None:
        """Args: folder: the result. component: whose. batch: rows at a time. most: take no more, spread
        out."""
        files = [np.load(path, mmap_mode="r") for path in sorted((folder / component).glob("*.npy"))]
        step = 1 if most is None else max(1, len(files[0]) // most)
        self._inputs = [rows[::step][:most] for rows in files]
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._inputs[0]) // self._batch)

    def __iter__(self) -> Iterator[Feed]:
        for start in range(0, len(self._inputs[0]), self._batch):
            found = tuple(np.array(rows[start : start + self._batch]) for rows in self._inputs)
            yield found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class PrepareComponent(Stage):
    """One component with LayerNorms, pixel normalisation and layer scales folded: its weights."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    component: str

    @property
    def title(self) -> str:
        return f"prepare {self.component}"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint
        from pocketvl.quantize.fold import fold_

        opened = open_checkpoint(source["source"])
        opened.model.requires_grad_(False)
        component = opened.component(self.component)
        fold_(component.module, example_inputs(component))
        save_component(component.module, out)


class ComponentStage(Protocol):
    """A stage whose result is a prepared component's weights."""

    @property
    def source(self) -> Path: ...

    @property
    def component(self) -> str: ...


class OfComponent:
    """Mixin of a stage that works on another stage's component."""

    prepared: ComponentStage

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.prepared.source

    @property
    def component(self) -> str:
        """Its name."""
        return self.prepared.component

    def reads(self) -> Mapping[str, Path]:
        """The description that the module is built from, which the weights do not hold."""
        return description_files(self.source)

    def environment(self) -> Mapping[str, str]:
        """Results computed with the component depend on the machine."""
        return this_machine()


@dataclass(frozen=True)
class EqualizeComponent(OfComponent, Stage):
    """One prepared component with its outlier channels equalized: weights and a log of the factors."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    prepared: PrepareComponent
    feeds: CalibrationFeeds

    @property
    def title(self) -> str:
        return f"equalize {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.quantize.equalize import equalize_

        component = open_component(self.source, self.component, source["prepared"])
        module, feeds = component.module, Feeds(source["feeds"], self.component)
        done = equalize_(module, example_inputs(component), feeds, progress=source.progress)
        save_component(module, out)
        document = [dataclasses.asdict(each) for each in done]
        (out / EQUALIZED_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def save_component(module: nn.Module, folder: Path) -> None:
    """Write a component's weights."""
    save_weights(module.state_dict(), folder)


def save_weights(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write a component's weights, given as a state dict."""
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / _WEIGHTS)


def open_component(source: Path, name: str, folder: Path) -> Component:
    """Open a prepared component, to be quantized or lowered.

    The checkpoint's own weights are not read.

    Args:
        source: the checkpoint.
        name: of the component.
        folder: where `save_component` wrote its weights.
    """
    from safetensors.torch import load_file

    from pocketvl.families import read_contract, uninitialised_component
    from pocketvl.quantize.fold import load_folded_

    component = uninitialised_component(read_contract(source), name)
    load_folded_(component.module, load_file(folder / _WEIGHTS))
    return component


def exported_components(source: Path) -> tuple[str, ...]:
    """The names of a checkpoint's components, each of which becomes one graph; imports no torch.

    Raises:
        SourceError: it is no checkpoint, or of a family that is not exported yet.
    """
    family = family_of(source)
    if family.head is not HeadKind.CONTRASTIVE:
        raise SourceError(
            f"{source} is a {family.name} model, which can be compressed and trained, but not exported yet"
        )
    return family.components
