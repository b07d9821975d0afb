"""From a checkpoint to the two towers that are quantized and lowered, and what calibration shows them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pocketvl.arrays import open_array
from pocketvl.data.dataset import Dataset, Sample
from pocketvl.errors import DataError, SourceError
from pocketvl.families.folder import description_files
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.isa import instruction_set
from pocketvl_runtime.manifest import PreprocessSpec, Role, TokenizerSpec
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

TORCH = ("torch", "transformers", "pillow", "tokenizers", "numpy", "safetensors")
ROLES = (Role.IMAGE_ENCODER, Role.TEXT_ENCODER)
INPUT_NAMES: Mapping[Role, str] = {Role.IMAGE_ENCODER: "pixels", Role.TEXT_ENCODER: "ids"}
EQUALIZED_FILE = "equalized.json"
_WEIGHTS = "weights.safetensors"
_MOST_TEXTS = 1024


def check_source(folder: Path) -> None:
    """Raises SourceError where a folder cannot be a checkpoint."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} is not a Hugging Face model folder: it has no config.json")


def this_machine() -> Mapping[str, str]:
    """What measured or floating-point results depend on beside their inputs."""
    return {"isa": instruction_set(), "processors": str(usable_processors())}


@dataclass(frozen=True)
class CalibrationFeeds(Stage):
    """What calibration shows the towers: the pixels and ids of a dataset, made as on the device."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    calibration: Path
    most_texts: int = _MOST_TEXTS

    def requires(self, source: Inputs) -> None:
        calibration_texts(Dataset.open(source["calibration"]))

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_source

        opened = open_source(source["source"])
        dataset = Dataset.open(source["calibration"])
        texts = calibration_texts(dataset)
        chosen = np.linspace(0, len(texts) - 1, min(len(texts), self.most_texts)).round().astype(int)
        write_pixels(out / "pixels.npy", dataset, opened.preprocess, source)
        np.save(out / "ids.npy", ids_of([texts[k] for k in chosen], opened.tokenizer_json, opened.tokenizer))


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


def write_pixels(path: Path, dataset: Dataset, spec: PreprocessSpec, source: Inputs) -> None:
    """Writes a dataset's pictures as uint8 [N, H, W, 3], preprocessed as on the device."""
    shape = (len(dataset), spec.height, spec.width, 3)
    rows = open_array(path, np.uint8, shape)

    def pixels(sample: Sample) -> npt.NDArray[np.uint8]:
        return preprocess(open_image(sample.image), spec)

    threads = ThreadPoolExecutor(usable_processors())  # Pillow decodes and resizes outside of Python's lock
    try:
        for place, row in enumerate(threads.map(pixels, dataset.samples)):
            rows[place] = row
            source.progress(place + 1, len(dataset), "preprocessing")
    finally:
        threads.shutdown(cancel_futures=True)  # where somebody interrupts, the rest is not read first
    rows.flush()


def ids_of(texts: list[str], tokenizer_json: bytes, spec: TokenizerSpec) -> npt.NDArray[np.int32]:
    """Token ids [N, T] of texts, as on the device."""
    return Tokenizer(tokenizer_json, spec).encode(texts).ids


class Feeds:
    """The rows of one of the files of `CalibrationFeeds`; the file is never in memory as a whole."""

    def __init__(self, folder: Path, role: Role, batch: int = 1, most: int | None = None) -> None:
        """Args: folder: their result. role: whose. batch: rows at a time. most: take no more, spread out."""
        rows = np.load(folder / f"{INPUT_NAMES[role]}.npy", mmap_mode="r")
        self._rows = rows if most is None else rows[:: max(1, len(rows) // most)][:most]
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch)

    def __iter__(self) -> Iterator[npt.NDArray[np.generic]]:
        for start in range(0, len(self._rows), self._batch):
            yield np.array(self._rows[start : start + self._batch])


@dataclass(frozen=True)
class PrepareTower(Stage):
    """One tower with its LayerNorms folded into the linears that read them: its weights."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    role: Role

    @property
    def title(self) -> str:
        return f"prepare {self.role.value}"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.quantize.fold import fold_layer_norms_

        module, example = _plain_tower(source["source"], self.role)
        fold_layer_norms_(module, example)
        save_tower(module, out)


class TowerStage(Protocol):
    """A stage whose result is a tower's weights."""

    @property
    def source(self) -> Path: ...

    @property
    def role(self) -> Role: ...


class OfTower:
    """Of a stage that works on another stage's tower: which that is."""

    tower: TowerStage

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.tower.source

    @property
    def role(self) -> Role:
        """Which tower."""
        return self.tower.role

    def reads(self) -> Mapping[str, Path]:
        """The checkpoint's description: the tower's weights say nothing of the module that they are of."""
        return description_files(self.source)

    def environment(self) -> Mapping[str, str]:
        """What computes with the tower depends on the machine."""
        return this_machine()


@dataclass(frozen=True)
class EqualizeTower(OfTower, Stage):
    """One prepared tower with its outlier channels evened out: its weights, and what was done."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    tower: PrepareTower
    feeds: CalibrationFeeds

    @property
    def title(self) -> str:
        return f"equalize {self.role.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.quantize.equalize import equalize_

        module, example = open_tower(self.source, self.role, source["tower"])
        done = equalize_(module, example, Feeds(source["feeds"], self.role), progress=source.progress)
        save_tower(module, out)
        told = [dataclasses.asdict(each) for each in done]
        (out / EQUALIZED_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def save_tower(module: nn.Module, folder: Path) -> None:
    """Writes a tower's weights."""
    save_weights(module.state_dict(), folder)


def save_weights(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes a tower's weights, given as its state."""
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in state.items()}, folder / _WEIGHTS)


def open_tower(source: Path, role: Role, folder: Path) -> tuple[nn.Module, torch.Tensor]:
    """A prepared tower as it is quantized and lowered, and an input of batch 1 for it.

    Args:
        source: the checkpoint.
        role: which tower.
        folder: where `save_tower` wrote its weights.
    """
    from safetensors.torch import load_file
    from torch import nn

    module, example = _plain_tower(source, role)
    state = load_file(folder / _WEIGHTS)
    for name in state:
        parent, _, last = name.rpartition(".")
        if last == "bias" and module.get_submodule(parent).bias is None:  # a LayerNorm's shift came into it
            module.get_submodule(parent).bias = nn.Parameter(state[name], requires_grad=False)
    module.load_state_dict(state)
    return module, example


def example_of(preprocess: PreprocessSpec, tokenizer: TokenizerSpec, role: Role) -> torch.Tensor:
    """An input of batch 1 for a tower: a black picture, or a text of nothing but filling."""
    import torch

    if role is Role.IMAGE_ENCODER:
        return torch.zeros(1, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    return torch.full((1, tokenizer.length), tokenizer.pad_id, dtype=torch.int32)


def _plain_tower(folder: Path, role: Role) -> tuple[nn.Module, torch.Tensor]:
    from pocketvl.families import open_source

    opened = open_source(folder)
    tower = opened.image_encoder if role is Role.IMAGE_ENCODER else opened.text_encoder
    return tower, example_of(opened.preprocess, opened.tokenizer, role)
