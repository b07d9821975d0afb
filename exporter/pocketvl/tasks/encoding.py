"""From a dataset's images and texts to a component's inputs, by the runtime's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.families.base import Contract
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import ImageProcessor, PortKind, TextProcessor
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
        images: how an image becomes pixels; None where no component takes any.
        tokenizer: how a text becomes ids; likewise.
        held: pixels of images that were read, kept for what reads them again; None where none are kept.
    """

    inputs: Mapping[str, Mapping[str, PortKind]]
    images: ImageProcessor | None
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
            contract.preprocess if contract.sees else None,
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
        images = next((each for each in processors if isinstance(each, ImageProcessor)), None)
        texts = next((each for each in processors if isinstance(each, TextProcessor)), None)
        return cls(inputs, images, None if texts is None else Tokenizer(bundle.read(texts.file), texts))

    def feed(self, component: str, images: Sequence[Path] = (), texts: Sequence[str] = ()) -> Feed:
        """The inputs of a component that reads images, texts, or one of each in a row.

        Args:
            component: its name.
            images: one a row, where it reads images.
            texts: one a row, where it reads texts.

        Raises:
            DataError: it reads something else as well.
            InputError: a text cannot be used; an image that cannot is found when its row is read.
        """
        kinds = self.inputs[component]
        encoded = self.tokenizer.encode(list(texts)) if texts and self.tokenizer is not None else None

        def read(start: int, stop: int) -> dict[str, Array]:
            found: dict[str, Array] = {}
            for name, kind in kinds.items():
                if kind is PortKind.PIXELS and images and self.images is not None:
                    found[name] = self._pixels(images[start:stop], self.images)
                elif kind is PortKind.TOKEN_IDS and encoded is not None:
                    found[name] = encoded.ids[start:stop]
                elif kind is PortKind.ATTENTION_MASK and encoded is not None:
                    found[name] = encoded.mask[start:stop]
                else:
                    raise DataError(f"{component}.{name}: a dataset has nothing for an input of {kind.value}")
            return found

        return Feed(component, max(len(images), len(texts)), read)

    def _pixels(self, paths: Sequence[Path], processor: ImageProcessor) -> Array:
        known = {} if self.held is None else self.held
        for path in dict.fromkeys(paths):
            if path not in known:
                known[path] = preprocess(open_image(path), processor)
        return np.stack([known[path] for path in paths])
