"""What the golden pack of a model asks and expects, and how far a variant may be off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.tasks.outputs import Outputs
from pocketvl_runtime import manifest
from pocketvl_runtime.golden import AnswerTolerance, Golden, GoldenArray, Scores, Tolerance, VariantTolerance

if TYPE_CHECKING:
    from pocketvl.tasks.base import Runner

ManifestTasks: TypeAlias = Mapping[str, manifest.Task]
"""Tasks of a manifest, by name."""

_SCORE_DIGITS = 7
_COSINE_MARGIN = 0.02
_MARGIN = 0.04
"""Kernels of one engine were apart by up to 0.035 on the golden questions of tabletop-vilt in int8."""
_EXACT_MARGIN = 1e-4


@dataclass(frozen=True)
class GoldenInputs:
    """What a model is shown of a golden pack.

    Attributes:
        media: files of images or sounds.
        texts: as they are.
    """

    media: Sequence[Path]
    texts: Sequence[str]


@dataclass(frozen=True)
class ShownAnswer:
    """What a model says of one golden image or sound, for people.

    Attributes:
        image: index among the golden images or sounds.
        texts: possible answers.
        probability: of each.
    """

    image: int
    texts: tuple[str, ...]
    probability: tuple[float, ...]


class GoldenCases(ABC):
    """The golden cases of models with one kind of head.

    `Outputs` are here those of golden inputs: of every port, the rows that stand in the pack come first, in
    its order; rows of texts that the manifest's tasks ask of may follow.
    """

    @abstractmethod
    def texts(self, dataset: Dataset) -> tuple[str, ...]:
        """A dataset's own texts, of which a pack takes the first."""

    @abstractmethod
    def tasks(self, dataset: Dataset) -> ManifestTasks:
        """What a manifest says that such a model can be asked."""

    @abstractmethod
    def outputs(self, runner: Runner, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
        """What a model makes of golden inputs, and of texts that its tasks ask of beside them.

        Raises:
            PocketVLError: the model cannot be run.
        """

    @abstractmethod
    def arrays(self, inputs: GoldenInputs, outputs: Outputs) -> dict[str, tuple[GoldenArray, ...]]:
        """Outputs as they stand in a pack, by port."""

    @abstractmethod
    def answers(
        self, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks
    ) -> dict[str, tuple[Scores, ...]]:
        """Answers as they stand in a pack, by task; a task whose answers are outputs has none there."""

    @abstractmethod
    def answer_tolerance(
        self, expected: Sequence[Scores], found: Sequence[Scores], task: manifest.Task, is_exact: bool
    ) -> AnswerTolerance:
        """How far a variant's answers may be from torch's: what was seen here, and a margin.

        Args:
            expected: by torch.
            found: by the variant.
            task: whose answers they are.
            is_exact: whether the variant computes in fp32.
        """

    @abstractmethod
    def shown(self, golden: Golden, outputs: Outputs, tasks: ManifestTasks) -> tuple[ShownAnswer, ...]:
        """Answers of a model for people, one a golden image or sound; of the same texts for every model.

        Args:
            golden: the pack, with torch's answers.
            outputs: of the model.
            tasks: of the manifest.
        """

    def tolerance(
        self, golden: Golden, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks, is_exact: bool
    ) -> VariantTolerance:
        """How far a variant may be from torch: what was seen here, and a margin for other processors.

        Args:
            golden: the pack, with torch's arrays and answers.
            inputs: of the pack.
            outputs: of the variant.
            tasks: those of the manifest that the runtime can run.
            is_exact: whether the variant computes in fp32.
        """
        found = self.answers(inputs, outputs, tasks)
        ports = {
            port: Tolerance(1e-4, 0.99999)
            if is_exact
            else Tolerance(None, _least_cosine(rows, outputs[port][: len(rows)]))
            for port, rows in expected_outputs(golden).arrays.items()
        }
        expected = golden.answers or {}
        return VariantTolerance(
            ports,
            {
                name: self.answer_tolerance(expected[name], found[name], task, is_exact)
                for name, task in tasks.items()
                if name in found
            },
        )


def expected_outputs(golden: Golden) -> Outputs:
    """The arrays of a pack as rows by port."""
    arrays = {
        port: np.array([np.reshape(each.values, each.shape)[0] for each in rows], np.float32)
        for port, rows in golden.outputs.items()
    }
    return Outputs(arrays, tuple(text.text for text in golden.texts))


def golden_array(inputs: Mapping[str, int], row: NDArray[np.float32]) -> GoldenArray:
    """A row [...] as it stands in a pack: float32 values as the shortest decimals that give them back."""
    values = tuple(float(str(value)) for value in row.astype(np.float32).ravel())
    return GoldenArray(inputs, (1, *row.shape), values)


def rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Scores as they stand in a pack: the last digits depend on the order that a processor sums in."""
    return tuple(values.round(_SCORE_DIGITS).tolist())


def pair_tolerance(expected: Sequence[Scores], found: Sequence[Scores], is_exact: bool) -> AnswerTolerance:
    """Of answers about an image and a text together: twice what probabilities were off, and a margin."""
    pairs = zip(expected, found, strict=True)
    worst = max((largest_difference(a.probability, b.probability) for a, b in pairs), default=0.0)
    margin = _EXACT_MARGIN if is_exact else _MARGIN
    return AnswerTolerance(0.0, rounded_up(min(2 * worst + margin, 1.0)))


def largest_difference(expected: Sequence[float] | None, found: Sequence[float] | None) -> float:
    """Of two equally long series of scores; 1 where one is not finite."""
    off = np.abs(np.subtract(expected or (), found or ()))
    return float(np.nan_to_num(off, nan=1.0).max(initial=0.0))


def rounded_up(value: float) -> float:
    """To four digits, so that the last ones of a sum do not show."""
    return float(np.ceil(1e4 * value) / 1e4)


def _least_cosine(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    products = (expected * got).sum(axis=1)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    worst = float(np.nan_to_num(products / np.maximum(norms, 1e-12), nan=-1.0).min())
    return max(-1.0, float(np.floor(100 * (worst - _COSINE_MARGIN)) / 100))
