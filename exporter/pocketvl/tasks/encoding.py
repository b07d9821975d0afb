"""From a dataset's images or sounds and texts to a component's inputs, by the runtime's own code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.families.base import Contract, MediaProcessor
from pocketvl.network.ports import MEDIA_KINDS
from pocketvl_runtime.audio import AudioWarning, load_features
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import AudioProcessor, ImageProcessor, PortKind, TextProcessor
from pocketvl_runtime.text import Tokenizer

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Feed:
    """What one component is shown, row by row.

    Attributes:
        component: its name.
        rows: how many.
        read: from the first row and the one after the last to the inputs by port, [rows, ...] each.
    """

    component: str
    rows: int
    read: Callable[[int, int], dict[str, Array]]


@dataclass(frozen=True, eq=False)
class Encoder:
    """The processors of a model, and which input of which component each fills.

    Attributes:
        inputs: by component, its input ports by name with their kinds.
        media: how an image becomes pixels, or a sound a spectrogram; None where no component takes any.
        tokenizer: how a text becomes ids; likewise.
        held: what became of files that were read, kept for what reads them again; None where nothing is kept.
    """

    inputs: Mapping[str, Mapping[str, PortKind]]
    media: MediaProcessor | None
    tokenizer: Tokenizer | None
    held: dict[Path, Array] | None = None

    @classmethod
    def of_contract(cls, contract: Contract) -> Encoder:
        """As a checkpoint wants it."""
        inputs = {
            name: {port.name: port.kind for port in ports.inputs}
            for name, ports in contract.components.items()
        }
        return cls(
            inputs,
            contract.media if contract.senses else None,
            Tokenizer(contract.tokenizer_json, contract.tokenizer) if contract.reads else None,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Encoder:
        """As a bundle's manifest says, so that what it says is measured too."""
        manifest = bundle.manifest
        inputs = {
            name: {port.name: port.kind for port in graph.inputs} for name, graph in manifest.graphs.items()
        }
        processors = manifest.processors.values()
        media = next((each for each in processors if isinstance(each, ImageProcessor | AudioProcessor)), None)
        texts = next((each for each in processors if isinstance(each, TextProcessor)), None)
        return cls(inputs, media, None if texts is None else Tokenizer(bundle.read(texts.file), texts))

    def feed(
        self,
        component: str,
        media: Sequence[Path] = (),
        texts: Sequence[str] = (),
        hidden: Callable[[int, int], Array] | None = None,
    ) -> Feed:
        """The inputs of a component that reads images or sounds, texts, or one of each in a row.

        Args:
            component: its name.
            media: one file a row, where it reads images or sounds.
            texts: one a row, where it reads texts.
            hidden: where it reads what another component gives: that, from the first row and the one after
                the last.

        Raises:
            DataError: it reads something else as well.
            InputError: a text cannot be used; a file that cannot is found when its row is read.
        """
        kinds = self.inputs[component]
        encoded = self.tokenizer.encode(list(texts)) if texts and self.tokenizer is not None else None

        def read(start: int, stop: int) -> dict[str, Array]:
            found: dict[str, Array] = {}
            for name, kind in kinds.items():
                if kind in MEDIA_KINDS and media and self.media is not None:
                    found[name] = self._made(media[start:stop], self.media)
                elif kind is PortKind.HIDDEN and hidden is not None:
                    found[name] = hidden(start, stop)
                elif kind is PortKind.TOKEN_IDS and encoded is not None:
                    found[name] = encoded.ids[start:stop]
                elif kind is PortKind.ATTENTION_MASK and encoded is not None:
                    found[name] = encoded.mask[start:stop]
                else:
                    raise DataError(f"{component}.{name}: a dataset has nothing for an input of {kind.value}")
            return found

        return Feed(component, max(len(media), len(texts)), read)

    def _made(self, paths: Sequence[Path], processor: MediaProcessor) -> Array:
        known = {} if self.held is None else self.held
        for path in dict.fromkeys(paths):
            if path not in known:
                known[path] = read_media(path, processor)
        return np.concatenate([known[path] for path in paths])


def read_media(path: Path, processor: MediaProcessor) -> Array:
    """A file as a component takes it, with a batch of 1: pixels, or the spectrogram of a sound.

    Raises:
        InputError: it cannot be used.
    """
    if isinstance(processor, AudioProcessor):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)  # a dataset's sounds are cut as on the device
            return load_features(path, processor)
    return preprocess(open_image(path), processor)[None]
