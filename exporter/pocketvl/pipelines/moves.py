"""Which groups of layers a step of the fallback moves, and where to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pocketvl_runtime.manifest import Precision

ResultT = TypeVar("ResultT")
_LEAST_SAVED = 0.25
"""Of what a group loses in static int8, what dynamic int8 must save, to be tried before float.

It costs no bytes, float four times the weights', and what it leaves can still go to float.
"""


@dataclass(frozen=True)
class Move:
    """A group of layers that can go to a higher precision.

    Attributes:
        component: that they are part of.
        layers: of the group.
        precision: where they go.
        saves: of the loss of cosine that they cause by themselves.
        bytes_added: to the graph file, roughly.
    """

    component: str
    layers: tuple[str, ...]
    precision: Precision
    saves: float
    bytes_added: int


def worst_first(ways: Iterable[tuple[Move, Move | None]]) -> list[Move]:
    """The moves of all groups in the order in which they are made.

    Args:
        ways: of each group the move to float, and that to dynamic int8 where it is in static int8; what a
            move to float saves is all that the group loses.
    """
    first, last = list[Move](), list[Move]()
    for to_float, to_dynamic in sorted(ways, key=lambda each: -each[0].saves):
        if to_dynamic is None or to_dynamic.saves <= _LEAST_SAVED * to_float.saves:
            first.append(to_float)
        else:
            first.append(to_dynamic)
            left = to_float.saves - to_dynamic.saves
            added = to_float.bytes_added - to_dynamic.bytes_added
            last.append(replace(to_float, saves=left, bytes_added=added))
    return first + sorted(last, key=lambda move: -move.saves)


def next_moves(
    waiting: Sequence[Move], components: Collection[str], share: float, room_bytes: int
) -> list[Move]:
    """The moves of one step: of one component to one precision, in their order.

    Args:
        waiting: what can be moved, in the order in which it is.
        components: to which to keep; empty: any.
        share: of what all of them save, what the step is to save.
        room_bytes: by which the graph files may grow.
    """
    mine = [move for move in waiting if not components or move.component in components]
    wanted, taken = share * sum(move.saves for move in mine), list[Move]()
    for move in mine:
        if taken and sum(each.saves for each in taken) >= wanted:
            break
        if move.bytes_added <= room_bytes - sum(each.bytes_added for each in taken):
            taken.append(move)
    return [
        move for move in taken if (move.component, move.precision) == (taken[0].component, taken[0].precision)
    ]


def fewest_that_pass(
    count: int, passed: ResultT, attempt: Callable[[int], ResultT | None], trials: int
) -> ResultT:
    """What passes of the fewest, by bisection.

    Args:
        count: that pass; none does not.
        passed: what comes of them.
        attempt: what comes of fewer, at least one; None where they do not pass.
        trials: most calls of `attempt`.
    """
    too_few = 0
    for _ in range(trials):
        fewer = (too_few + count) // 2
        if fewer == too_few:
            break
        found = attempt(fewer)
        if found is None:
            too_few = fewer
        else:
            passed, count = found, fewer
    return passed
