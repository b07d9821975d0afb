"""What calibration sees of a component, and the equalization that follows from it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from pocketvl.families.base import Component, example_inputs
from pocketvl.families.layers.segments import Blocks
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.pipelines.stages.components import (
    TORCH,
    WEIGHTS_FILE,
    CalibrationFeeds,
    Feeds,
    OfComponent,
    PrepareComponent,
    open_component,
    segments_of,
)
from pocketvl.quantize.equalized import save_equalized
from pocketvl.stage import Inputs, Stage, link_or_copy
from pocketvl.threads import one_torch_thread

BATCH = 16
"""Samples at a time: one large product of matrices takes less time than many small ones."""
_WARNINGS_FILE = "warnings.json"


@dataclass(frozen=True)
class CalibrateComponent(OfComponent, Stage):
    """Activation statistics of a prepared component's layers.

    Attributes:
        equalizes: whether they have to be enough to equalize it.
    """

    version: ClassVar[int] = 7
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "scipy")
    keeps: ClassVar[bool] = False

    prepared: PrepareComponent
    feeds: CalibrationFeeds
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    equalizes: bool = False

    @property
    def title(self) -> str:
        return f"calibrate {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families.batches import reads_texts_alone
        from pocketvl.observe.calibrate import calibrate
        from pocketvl.quantize.equalize import scalable

        component = open_component(self.source, self.component, source["prepared"])
        module, feeds = component.module, Feeds(source["feeds"], self.component, BATCH, reader=component)
        read = scalable(module, example_inputs(component)) if self.equalizes else ()
        kept = {name for readers in read for name in readers.linears}
        skipped = component.unquantized
        with one_torch_thread() if reads_texts_alone(component) else nullcontext():
            seen = calibrate(module, feeds, self.settings, source.progress, kept, skipped)
        replace(seen, warnings=(*seen.warnings, *_on_padding(component, feeds))).save(out)


def _on_padding(component: Component, feeds: Feeds) -> tuple[str, ...]:
    """What can be done where a graph would compute padding for the most part."""
    most, longest = feeds.tokens, feeds.longest
    if most == 0 or 2 * longest > most:
        return ()
    return (
        f"no text has more than {longest} tokens, and the {component.name} computes {most} of each: "
        "shorten-texts, a step of `pocketvl compress`, saves most of its time",
    )


@dataclass(frozen=True)
class EqualizeComponent(OfComponent, Stage):
    """One prepared component with outlier channels equalized: its weights, and what they are scaled by."""

    version: ClassVar[int] = 7
    tools: ClassVar[tuple[str, ...]] = TORCH
    keeps: ClassVar[bool] = False

    prepared: PrepareComponent
    calibration: CalibrateComponent

    @property
    def title(self) -> str:
        return f"equalize {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibration import Calibration
        from pocketvl.quantize.equalize import equalize_

        component = open_component(self.source, self.component, source["prepared"])
        seen, settings = Calibration.load(source["calibration"]), self.calibration.settings
        with one_torch_thread():
            decided = equalize_(
                component.module, example_inputs(component), seen, settings, progress=source.progress
            )
        save_equalized(decided, out)
        link_or_copy(source["prepared"] / WEIGHTS_FILE, out / WEIGHTS_FILE)


@dataclass(frozen=True)
class NoteCalibration(Stage):
    """What is doubtful about the samples that a component was calibrated with."""

    calibration: CalibrateComponent

    @property
    def component(self) -> str:
        """The component's name."""
        return self.calibration.component

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibration import read_warnings

        text = json.dumps(read_warnings(source["calibration"]), indent=1)
        (out / _WARNINGS_FILE).write_text(text + "\n", encoding="utf-8")


def read_notes(folder: Path) -> tuple[str, ...]:
    """Read the result of `NoteCalibration`, a line each."""
    return tuple(json.loads((folder / _WARNINGS_FILE).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class CalibrateProducts(OfComponent, Stage):
    """Activation statistics of attention's products in a component.

    Attributes:
        blocks: of which products: whole ones, or which of their blocks.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    prepared: PrepareComponent | EqualizeComponent
    feeds: CalibrationFeeds
    settings: CalibrationSettings
    blocks: Blocks

    @property
    def title(self) -> str:
        return f"calibrate the products of {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibration import Calibration
        from pocketvl.quantize.products import calibrate_products

        component = open_component(self.source, self.component, source["prepared"])
        segments = segments_of(component)
        feeds = Feeds(source["feeds"], self.component, reader=component if segments is None else None)
        seen = calibrate_products(
            component.module, feeds, self.settings, segments, self.blocks, source.progress
        )
        Calibration({}, seen).save(out)
