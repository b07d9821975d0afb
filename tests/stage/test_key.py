"""A result is taken from the cache exactly when nothing that it was made from has changed."""

from __future__ import annotations

import dataclasses
import enum
import importlib.metadata
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from pocketvl.errors import StageError
from pocketvl.stage import Inputs, PlanError, Stage, desk, link_or_copy, plan, run
from pocketvl.stage.contents import Contents
from tests.stage.toy import Letters, Repeat, chain


class Mode(enum.StrEnum):
    FAST = "fast"
    GOOD = "good"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Count(Stage):
    """Says how often it ran."""

    runs: ClassVar[list[int]] = []
    around: ClassVar[dict[str, str]] = {"isa": "avx2"}
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    source: Path
    more: tuple[Path, ...] = ()
    mode: Mode = Mode.FAST
    inner: Inner = Inner()
    table: dict[str, int] = field(default_factory=dict)

    def environment(self) -> Mapping[str, str]:
        return self.around

    def run(self, source: Inputs, out: Path) -> None:
        self.runs.append(len(source.all("more")))
        (out / "n").write_text(str(len(self.runs)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (folder / name).write_text(name)
    return folder


def runs_of(stage: Stage, cache: Path) -> int:
    """How often `Count` ran while `stage` was asked for."""
    before = len(Count.runs)
    run(plan([stage]), cache)
    return len(Count.runs) - before


def test_an_unchanged_stage_runs_once(folder: Path, tmp_path: Path) -> None:
    assert [runs_of(Count(folder), tmp_path / "cache") for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"mode": Mode.GOOD},
        {"inner": Inner(rate=0.25)},
        {"inner": Inner(names=("a", "b"))},
        {"table": {"k": 1}},
    ],
    ids=str,
)
def test_a_changed_setting_runs_it_again(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    stage = Count(folder)
    assert runs_of(stage, tmp_path / "cache") == 1
    assert runs_of(dataclasses.replace(stage, **change), tmp_path / "cache") == 1  # type: ignore[arg-type]


def test_a_changed_version_tool_or_environment_runs_it_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    assert runs_of(Count(folder), cache) == 1
    monkeypatch.setattr(Count, "version", 2)
    assert runs_of(Count(folder), cache) == 1
    monkeypatch.setattr(Count, "around", {"isa": "neon"})
    assert runs_of(Count(folder), cache) == 1
    real = importlib.metadata.version
    monkeypatch.setattr(desk, "installed_version", lambda name: real(name) + ".post1")
    assert runs_of(Count(folder), cache) == 1


def test_any_change_below_an_input_folder_runs_it_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert runs_of(Count(folder), cache) == 1
    (folder / "sub" / "c.txt").write_text("SUB/C.TXT")  # as many bytes
    assert runs_of(Count(folder), cache) == 1
    (folder / "sub" / "c.txt").rename(folder / "sub" / "d.txt")
    assert runs_of(Count(folder), cache) == 1
    (folder / "extra").write_text("")
    assert runs_of(Count(folder), cache) == 1
    (folder / "extra").unlink()
    assert runs_of(Count(folder), cache) == 0  # as before the last change


def test_where_an_input_is_and_how_old_does_not_matter(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert runs_of(Count(folder), cache) == 1
    os.utime(folder / "a.txt", (1, 1))
    moved = folder.rename(tmp_path / "elsewhere")
    assert runs_of(Count(moved), cache) == 0


def test_order_and_number_of_inputs_matter(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, two = folder / "a.txt", folder / "b.txt"
    for more in ((), (one,), (one, two), (two, one)):
        assert runs_of(Count(folder, more), cache) == 1


def test_a_change_upstream_counts_only_if_its_result_changed(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = Repeat(Letters(folder))
    assert not run(plan([first]), cache)[first].was_cached
    (folder / "note.md").write_text("Letters runs again, with the same result")
    results = run(plan([first]), cache)
    assert [result.was_cached for result in results] == [False, True]
    (folder / "a.txt").write_text("other")
    assert [result.was_cached for result in run(plan([first]), cache)] == [False, False]


def test_a_file_rewritten_within_one_clock_tick_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    memo = tmp_path / "memo"
    seen = set()
    for turn in range(50):
        path.write_text(f"{turn:04}")
        contents = Contents(memo)
        seen.add(contents.of(path))
        contents.save()
    assert len(seen) == 50


def test_a_settled_file_is_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memo = tmp_path / "weights", tmp_path / "memo"
    path.write_text("abc")
    monkeypatch.setattr("pocketvl.stage.contents.SETTLED_NS", 0)
    time.sleep(0.02)
    first = Contents(memo)
    digest = first.of(path)
    first.save()
    monkeypatch.setattr("hashlib.file_digest", None)
    assert Contents(memo).of(path) == digest


def test_a_file_of_a_result_is_not_read_again_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, then = tmp_path / "first", tmp_path / "then"
    for folder in (first, then):
        folder.mkdir()
    (first / "weights").write_text("abc")
    monkeypatch.setattr("pocketvl.stage.contents.SETTLED_NS", 0)
    time.sleep(0.02)
    digests = Contents().files(first, of_result=True)
    link_or_copy(first / "weights", then / "graph")  # which changes its ctime
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        assert Contents().files(then, of_result=True) == {"graph": digests["weights"]}
        with pytest.raises(TypeError):
            Contents().files(then)  # of what is no result, all is read
    (then / "graph").write_text("abd")
    assert Contents().files(then, of_result=True) != {"graph": digests["weights"]}


DAMAGED_MEMOS = (b"", b"{", b"[]", b'{"format": 1, "files": {"x": 3}}', b'{"format": 2}', b"\xff")


@pytest.mark.parametrize("memo", DAMAGED_MEMOS)
def test_a_damaged_memo_costs_only_time(tmp_path: Path, memo: bytes) -> None:
    (tmp_path / "memo").write_bytes(memo)
    (tmp_path / "weights").write_text("abc")
    assert Contents(tmp_path / "memo").of(tmp_path / "weights") == Contents().of(tmp_path / "weights")


def test_links_in_inputs_count_as_what_they_point_to(folder: Path, tmp_path: Path) -> None:
    digest = Contents().of(folder)
    target = (folder / "a.txt").rename(tmp_path / "blob")
    (folder / "a.txt").symlink_to(target)
    assert Contents().of(folder) == digest
    (folder / "sub" / "up").symlink_to(folder)
    with pytest.raises(StageError, match="lies in"):
        Contents().of(folder)


def test_a_setting_without_json_is_refused_before_anything_runs(folder: Path) -> None:
    for bad in (object(), {1: 2}, float("nan"), b"bytes"):
        with pytest.raises(PlanError, match=r"count\.table"):
            plan([Count(folder, table=bad)])  # type: ignore[arg-type]


def test_equal_stages_are_one(folder: Path) -> None:
    assert len(plan([chain(folder), chain(folder)]).stages) == 4
    assert [stage.name for stage in plan([chain(folder)]).stages] == ["letters", "repeat", "repeat", "join"]


def test_ingredients_hold_no_paths(folder: Path, tmp_path: Path) -> None:
    for result in run(plan([chain(folder)]), tmp_path / "cache"):
        assert str(tmp_path) not in str(result.ingredients)
        assert result.ingredients["version"] == result.stage.version
