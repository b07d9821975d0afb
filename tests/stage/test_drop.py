"""Dropped results are found all the same, and made again for whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pocketvl.stage import Event, EventKind, Inputs, Results, Stage, Store, drop, plan, run
from tests.stage.toy import Letters, Repeat


@dataclass(frozen=True)
class Passing(Stage):
    """Copies another stage's texts; not worth keeping."""

    keeps: ClassVar[bool] = False

    texts: Stage

    def run(self, source: Inputs, out: Path) -> None:
        for path in source["texts"].rglob("*.txt"):
            (out / path.name).write_text(path.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "a.txt").write_text("a" * 20)
    return folder


def made(folder: Path, cache: Path, times: int = 2) -> tuple[Results, list[str]]:
    """A chain of four, two of them passing; and what had to be made of it."""
    last = Repeat(Passing(Passing(Letters(folder))), times)
    told: list[Event] = []
    results = run(plan([last]), cache, told.append)
    return results, [event.stage.name for event in told if event.kind is EventKind.DONE]


def test_what_was_made_of_dropped_results_is_found(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results, _ = made(folder, cache)
    drop(results, cache)
    assert list(cache.glob("passing/*/result")) == []
    again, anew = made(folder, cache)
    assert anew == []
    assert {result.digest for result in again} == {result.digest for result in results}
    assert [result.stage.name for result in again if result.is_dropped] == ["passing", "passing"]


def test_dropped_results_are_made_again_where_something_new_reads_them(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results, _ = made(folder, cache)
    drop(results, cache)
    again, anew = made(folder, cache, times=3)
    assert anew == ["passing", "passing", "repeat"]
    (text,) = (result.folder / "all.txt" for result in again if result.stage.name == "repeat")
    assert text.read_text() == "A" * 60


def test_a_dropped_result_that_is_wanted_is_made_again(folder: Path, tmp_path: Path) -> None:
    cache, wanted = tmp_path / "cache", Passing(Letters(folder))
    results = run(plan([wanted]), cache)
    drop(results, cache)
    found = run(plan([wanted]), cache)[wanted]
    assert not found.is_dropped
    assert (found.folder / "a.txt").read_text() == "A" * 20


def test_nothing_is_dropped_while_the_cache_is_in_use(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results, _ = made(folder, cache)
    with Store(cache).in_use():
        drop(results, cache)
    assert len(list(cache.glob("passing/*/result"))) == 2
