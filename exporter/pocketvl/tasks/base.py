"""What a kind of head brings with it: outputs, metrics, parity. All that judges a model is written on top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families.base import Contract
from pocketvl.tasks.encoding import Array, Encoder, Feed
from pocketvl.tasks.golden import GoldenCases
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.parity import ParityReport, measure_parity
from pocketvl_runtime.progress import Progress

_REPORT_EVERY = 50


class Runner(Protocol):
    """A model that can be run component by component: torch, simulated integers, or a variant of a bundle.

    Attributes:
        name: for progress, "torch fp32" or a variant's.
        batch: the most rows of one run.
        encoder: what makes its inputs.
    """

    @property
    def name(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def encoder(self) -> Encoder: ...

    def run(self, component: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of a component by port, for inputs by port; [rows, ...] each."""
        ...


class Task(ABC):
    """How a model with one kind of head is asked and judged.

    Attributes:
        metrics: what can be measured of it, where a dataset has something for it.
    """

    metrics: ClassVar[tuple[Metric, ...]]

    @property
    @abstractmethod
    def golden(self) -> GoldenCases:
        """What a bundle's golden pack asks of the model, and how near a variant must come."""

    @classmethod
    @abstractmethod
    def check(cls, dataset: Dataset) -> None:
        """Says at once what a dataset lacks.

        Raises:
            DataError: the model cannot be compared on it.
        """

    @classmethod
    @abstractmethod
    def check_calibration(cls, dataset: Dataset) -> None:
        """Says at once what a dataset lacks to calibrate with.

        Raises:
            DataError: some component would be shown nothing.
        """

    @classmethod
    @abstractmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        """What is read of a dataset, in the order of the outputs' rows."""

    @abstractmethod
    def feeds(self, encoder: Encoder, dataset: Dataset) -> tuple[Feed, ...]:
        """What each component is shown of a dataset."""

    @classmethod
    @abstractmethod
    def calibration_feeds(
        cls, contract: Contract, encoder: Encoder, dataset: Dataset, most_texts: int
    ) -> tuple[Feed, ...]:
        """What calibration shows each component; needs nothing of the weights.

        Args:
            contract: of the checkpoint.
            encoder: makes the inputs.
            dataset: to calibrate with.
            most_texts: where a dataset has more texts, so many are taken, spread evenly.

        Raises:
            DataError: some component would be shown nothing.
        """

    @abstractmethod
    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        """Every metric that the dataset has something for.

        Raises:
            DataError: the outputs are not this dataset's.
        """

    @abstractmethod
    def soft_score(self, dataset: Dataset, outputs: Outputs) -> float:
        """The mean probability of the right answer, in [0, 1].

        Raises:
            DataError: the dataset asks nothing.
        """

    def outputs(
        self, runner: Runner, dataset: Dataset, progress: Progress | None = None, most: int | None = None
    ) -> Outputs:
        """What a model gives for a dataset; NaN and infinity are kept as such.

        Args:
            runner: the model.
            dataset: its samples are read in order.
            progress: called with rows done, rows in all, and what is being done.
            most: rows of each component, of which `parity` can be told and nothing else; spread evenly. None:
                all. A task whose rows depend on each other may give all.

        Raises:
            DataError: the dataset has nothing for this task.
            InputError: an image or a text cannot be used.
            PocketVLError: the model cannot be run.
        """
        feeds = [part_of(feed, most) for feed in self.feeds(runner.encoder, dataset)]
        total, before = sum(feed.rows for feed in feeds), 0
        arrays: dict[str, NDArray[np.float32]] = {}
        for feed in feeds:
            arrays |= run_feed(runner, feed, progress, before, total)
            before += feed.rows
        return Outputs(arrays, self.texts(dataset), most)

    def parity(self, reference: Outputs, variant: Outputs) -> dict[str, ParityReport]:
        """How close a variant's outputs are to the reference's, by port.

        Args:
            reference: for all inputs.
            variant: for all, or its `most`.

        Raises:
            DataError: the two are not outputs for the same inputs.
        """
        if reference.texts != variant.texts:
            raise DataError("reference and variant were given different texts; measure both anew")
        return {
            port: measure_parity(_part(rows, variant.most), variant[port])
            for port, rows in reference.arrays.items()
        }


def _part(rows: NDArray[np.float32], most: int | None) -> NDArray[np.float32]:
    return rows if most is None else rows[spread_evenly(len(rows), most)]


def spread_evenly(count: int, most: int) -> list[int]:
    """The indices of at most `most` of `count` things, the first and the last among them."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, most)).round()]


def part_of(feed: Feed, most: int | None) -> Feed:
    """At most so many of a feed's rows, spread evenly; None: all."""
    if most is None or feed.rows <= most:
        return feed
    chosen = spread_evenly(feed.rows, most)

    def read(start: int, stop: int) -> dict[str, Array]:
        rows = [feed.read(index, index + 1) for index in chosen[start:stop]]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return Feed(feed.component, most, read)


def run_feed(
    runner: Runner, feed: Feed, progress: Progress | None = None, before: int = 0, total: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """One component's outputs for all rows of a feed, by port, "component.port".

    Args:
        runner: the model.
        feed: of one of its components.
        progress: called about every 50 rows.
        before: rows of other feeds that are done.
        total: rows of all feeds; by default of this one.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {}
    reported = 0
    for start in range(0, feed.rows, runner.batch):
        stop = min(start + runner.batch, feed.rows)
        for name, rows in runner.run(feed.component, feed.read(start, stop)).items():
            parts.setdefault(f"{feed.component}.{name}", []).append(np.asarray(rows, np.float32))
        if progress is not None and (stop - reported >= _REPORT_EVERY or stop == feed.rows):
            reported = stop
            progress(before + stop, total or feed.rows, f"running {runner.name}")
    return {port: np.concatenate(rows) for port, rows in parts.items()}
