"""What the page says of the operators of a profile; whoever knows their explanation fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OpsRow:
    """The operators of one variant's graph.

    Attributes:
        label: of the row.
        parts: milliseconds by class of operator.
    """

    label: str
    parts: Mapping[str, float]


@dataclass(frozen=True)
class OpsAdvice:
    """What is said of one variant.

    Attributes:
        variant: its name.
        text: one paragraph.
        alarms: sentences about faults.
    """

    variant: str
    text: str
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class ExplainedOps:
    """The operators of a profile.

    Attributes:
        classes: of operators, in the order in which they are drawn.
        rows: one a graph.
        advice: one a variant.
    """

    classes: tuple[str, ...]
    rows: tuple[OpsRow, ...]
    advice: tuple[OpsAdvice, ...]
