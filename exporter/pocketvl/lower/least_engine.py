"""The oldest version of an engine that computes a graph rightly, and what in the graph asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pocketvl_runtime.backends.versions import release


@dataclass(frozen=True)
class LeastEngine:
    """A version, as docs/BUNDLE.md counts those of `min_engine`, and why it is no older one.

    Attributes:
        version: digits and dots.
        reason: what in which graph asks for it, for people.
    """

    version: str
    reason: str


def newest(found: Iterable[LeastEngine | None]) -> LeastEngine | None:
    """The one with the newest version, the first of equal ones; None where any version will do."""
    return max(filter(None, found), key=lambda each: release(each.version), default=None)
