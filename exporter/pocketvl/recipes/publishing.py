"""Brings a stage's result to where the user wants it, unless it is there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pocketvl.stage import clean_up, publish


def publish_if_changed(result: Path, out: Path, is_ours: Callable[[Path], bool]) -> None:
    """Replaces `out` by a copy of `result` in one step; does nothing where the two are equal.

    Raises:
        StageError: what stands at `out` may not be replaced.
    """
    if _same(result, out):
        clean_up(out)
    else:
        publish(result, out, is_ours)


def _same(result: Path, out: Path) -> bool:
    names = sorted(p.relative_to(result) for p in result.rglob("*") if p.is_file())
    if not out.is_dir() or names != sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file()):
        return False
    return all((result / name).read_bytes() == (out / name).read_bytes() for name in names)
