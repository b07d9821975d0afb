"""What tasks measure: right or wrong, sample by sample, so that two models are compared on the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Metric(StrEnum):
    """What can be measured on a dataset, named as in report.json."""

    MATCH_HARD = "match_hard"
    RETRIEVAL_R1 = "retrieval_r1"
    RETRIEVAL = "retrieval"
    CLASSIFY = "classify"
    ASK = "ask"
    KNN = "knn"
    ITM_HARD = "itm_hard"


@dataclass(frozen=True, eq=False)
class TaskOutcome:
    """The answers to one metric's samples.

    Attributes:
        metric: what was measured.
        correct: bool [n], one a sample that the metric applies to.
        by_kind: for `match_hard` and `itm_hard`, per kind of negative a bool [m]: does the caption rank above
            that negative; for `ask`, per type of question a bool [m]: is the answer right; for `retrieval`
            and `classify`, per rank a bool [n]: is what is right among the first 1, 5 or 10.
        constant: for `ask`, per type of question the rate of the one answer that is right most often, in
            [0, 1]: what a model that never looks can reach.
        notes: what was left out, and why.
    """

    metric: Metric
    correct: NDArray[np.bool_]
    by_kind: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    constant: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOutcomes:
    """All that could be measured on a dataset; `notes` says what could not, and why."""

    tasks: dict[Metric, TaskOutcome]
    notes: tuple[str, ...]
