"""From a checkpoint to the components that are quantized and lowered, and what calibration shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pocketvl.arrays import open_array
from pocketvl.data.dataset import Dataset
from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import family_of
from pocketvl.families.base import Component, Contract, example_inputs
from pocketvl.families.folders.files import config_path, description_files
from pocketvl.families.folders.weights import check_weight_files
from pocketvl.families.layers.segments import Segments
from pocketvl.network.ports import token_input
from pocketvl.stage import Inputs, Stage
from pocketvl.tasks import task_class
from pocketvl.tasks.encoding import Encoder, Feed, read_media
from pocketvl.threads import in_threads
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.isa import instruction_set
from pocketvl_runtime.manifest import TextProcessor
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

TORCH = ("torch", "transformers", "pillow", "tokenizers", "numpy", "safetensors")
WEIGHTS_FILE = "weights.safetensors"
_MOST_TEXTS = 1024
_Array: TypeAlias = npt.NDArray[np.generic]
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def check_source(folder: Path) -> None:
    """Raise SourceError where a folder is of no known family, or its weights are missing or cut short."""
    if folder.is_dir() and not config_path(folder).is_file():
        raise SourceError(f"{folder} is not a Hugging Face model folder: it has no config.json")
    family_of(folder)
    check_weight_files(folder)


def check_second_head(folder: Path, what: str) -> None:
    """Raise RecipeError where a checkpoint has a second head, of which `what` knows nothing."""
    second = family_of(folder).reranker
    if second is not None:
        raise RecipeError(
            f"{folder}: {what} knows one head, and this model has a second ({second}) that shares layers "
            "with it; compress the model first, with the step drop-reranker"
        )


def this_machine() -> Mapping[str, str]:
    """The machine properties that measured or floating-point results depend on."""
    return {"isa": instruction_set(), "processors": str(usable_processors())}


@dataclass(frozen=True)
class CalibrationFeeds(Stage):
    """What calibration shows the components, as their task says: inputs by port, made as on the device."""

    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    calibration: Path
    most_texts: int = _MOST_TEXTS

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        family, dataset = family_of(source["source"]), Dataset.open(source["calibration"])
        dataset.media(family.modality)
        task_class(family).check_calibration(dataset)

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import check_checkpoint, read_contract

        check_checkpoint(source["source"])  # now, not after minutes of preprocessing
        contract = read_contract(source["source"])
        dataset = Dataset.open(source["calibration"])
        encoder = Encoder.of_contract(contract)
        task = task_class(family_of(source["source"]))
        feeds = task.calibration_feeds(contract, encoder, dataset, self.most_texts)
        total, before = sum(feed.rows for feed in feeds), 0
        for feed in feeds:
            (out / feed.component).mkdir()
            _write_feed(out / feed.component, feed, source, before, total)
            before += feed.rows


def _write_feed(folder: Path, feed: Feed, source: Inputs, before: int, total: int) -> None:
    """Writes a feed's rows, one file an input, in the order of the component's; `before` others are done."""
    arrays = {
        name: open_array(folder / f"{index}_{name}.npy", rows.dtype, (feed.rows, *rows.shape[1:]))
        for index, (name, rows) in enumerate(feed.read(0, 1).items())
    }
    with in_threads(lambda index: feed.read(index, index + 1), range(feed.rows)) as found:
        for index, row in enumerate(found):
            for name, values in row.items():
                arrays[name][index] = values[0]
            source.progress(before + index + 1, total, "preprocessing")
    for array in arrays.values():
        array.flush()


def write_media(path: Path, dataset: Dataset, contract: Contract, source: Inputs) -> None:
    """Write a dataset's pictures or sounds as a model takes them, [N, ...], preprocessed as on the device."""
    processor = contract.media
    rows = open_array(path, np.dtype(processor.output.dtype), (len(dataset), *processor.output.shape[1:]))

    def made(file: Path) -> npt.NDArray[np.generic]:
        return read_media(file, processor)

    with in_threads(made, dataset.media(contract.modality)) as found:
        for index, row in enumerate(found):
            rows[index] = row[0]
            source.progress(index + 1, len(dataset), "preprocessing")
    rows.flush()


def ids_of(texts: list[str], tokenizer_json: bytes, spec: TextProcessor) -> npt.NDArray[np.int32]:
    """Token ids [N, T] of texts, as on the device."""
    return Tokenizer(tokenizer_json, spec).encode(texts).ids


class Feeds:
    """The inputs of one component out of a result of `CalibrationFeeds`; never in memory as a whole."""

    def __init__(
        self,
        folder: Path,
        component: str,
        batch: int = 1,
        most: int | None = None,
        reader: Component | None = None,
    ) -> None:
        """Args: folder: the result. component: whose. batch: rows at a time. most: take no more, spread
        out. reader: the component, where of texts no more tokens are wanted than it reads."""
        from pocketvl.families.batches import batches

        files = [np.load(path, mmap_mode="r") for path in sorted((folder / component).glob("*.npy"))]
        step = 1 if most is None else max(1, len(files[0]) // most)
        self._inputs = [rows[::step][:most] for rows in files]
        self._texts = None if reader is None else token_input(reader.inputs)
        ids = None if self._texts is None else self._inputs[self._texts]
        module = None if reader is None else reader.module
        self._batches = tuple(batches(module, ids, len(self._inputs[0]), batch))
        self.tokens = 0 if ids is None else ids.shape[1]
        self.longest = max((length or 0 for _, length in self._batches), default=0)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[_Array | tuple[_Array, ...]]:
        """A component's input, or all of its inputs, batch by batch."""
        from pocketvl.families.batches import cut

        for rows, length in self._batches:
            found = cut([values[rows] for values in self._inputs], self._texts, length)
            yield found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class PrepareComponent(Stage):
    """One component with what can be folded into its weights folded: those weights."""

    version: ClassVar[int] = 6
    tools: ClassVar[tuple[str, ...]] = TORCH
    keeps: ClassVar[bool] = False

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


def save_component(module: nn.Module, folder: Path) -> None:
    """Write a component's weights."""
    save_weights(module.state_dict(), folder)


def save_weights(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write a component's weights, given as a state dict."""
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / WEIGHTS_FILE)


def open_component(source: Path, name: str, folder: Path) -> Component:
    """Open a prepared component, to be quantized or lowered.

    The checkpoint's own weights are not read.

    Args:
        source: the checkpoint.
        name: of the component.
        folder: where `save_component` wrote its weights; those of an equalized one are as they were before.
    """
    from safetensors.torch import load_file

    from pocketvl.families import read_contract, uninitialised_component
    from pocketvl.quantize.equalize import apply_equalization_
    from pocketvl.quantize.equalized import EQUALIZED_FILE, read_equalized
    from pocketvl.quantize.fold import load_folded_

    component = uninitialised_component(read_contract(source), name)
    load_folded_(component.module, load_file(folder / WEIGHTS_FILE))
    if (folder / EQUALIZED_FILE).is_file():
        for each in read_equalized(folder):
            apply_equalization_(component.module, each)
    return component


def segments_of(component: Component) -> Segments | None:
    """The parts of the sequence that a component's layers read; None where they read one modality."""
    return next((stack.segments for stack in component.stacks if stack.segments is not None), None)
