"""A run leaves whole results or nothing, and says in one line what was wrong."""

from __future__ import annotations

import errno
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketvl.errors import DataError, GateError, StageError
from pocketvl.stage import Event, EventKind, Inputs, PlanError, Result, Results, Stage, plan, run
from tests.stage.toy import Join, Letters, Repeat, chain


@dataclass(frozen=True)
class Fail(Stage):
    """Writes something, then fails."""

    error: str
    texts: Stage | None = None

    def run(self, source: Inputs, out: Path) -> None:
        (out / "half").write_text("written")
        match self.error:
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "gate":
                raise GateError(("tflite-int8 match_hard 1.4 > 1.0",))
            case "bug":
                raise ValueError("oops")
            case "link":
                (out / "link").symlink_to("/etc/hostname")
            case "nothing":
                (out / "half").unlink()

    def ensures(self, source: Inputs, result: Path) -> None:
        if self.error == "ensures":
            raise DataError("the result is not good")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(name * 20)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def ran(results: Results) -> list[str]:
    return [result.stage.name for result in results if not result.was_cached]


def test_a_plan_runs_in_order_and_tells(folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    last = chain(folder)
    results = run(plan([last]), tmp_path / "cache", events.append)
    assert tree(results[last].folder)["part1.bin"] == ("A" * 20 + "B" * 20 + "C" * 20).encode() * 4 * 50
    kinds = [(event.kind, event.number) for event in events if event.kind is not EventKind.PROGRESS]
    assert kinds == [(kind, n) for n in (1, 2, 3, 4) for kind in (EventKind.STARTED, EventKind.DONE)]
    assert [event.progress for event in events if event.kind is EventKind.PROGRESS][:2] == [
        (0, 3, "turn"),
        (1, 3, "turn"),
    ]
    assert all(event.total == 4 for event in events)
    events.clear()
    run(plan([last]), tmp_path / "cache", events.append)
    assert [event.kind for event in events] == [EventKind.CACHED] * 4


def test_two_caches_hold_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(plan([chain(folder)]), tmp_path / name)
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    one.pop("digests.json", None)
    two.pop("digests.json", None)
    assert one == two
    assert len(one) > 8


def test_everything_wrong_with_a_plan_is_said_at_once_and_nothing_runs(folder: Path, tmp_path: Path) -> None:
    parts = Letters(folder), Letters(folder, suffix=".md"), Letters(tmp_path / "no")
    late = Join(tuple(Repeat(part) for part in parts))
    with pytest.raises(PlanError, match=r"has no \*\.md") as caught:
        run(plan([late]), tmp_path / "cache")
    assert len(caught.value.problems) == 2
    assert f"letters: folder: {tmp_path / 'no'} does not exist" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_missing_tool_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repeat, "tools", ("no-such-distribution",))
    with pytest.raises(PlanError, match="needs the package no-such-distribution"):
        plan([chain(folder)])


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        ("full", StageError, "fail failed: no space left on the disk of "),
        ("gate", GateError, "tflite-int8 match_hard"),
        ("bug", ValueError, "oops"),
        ("ensures", DataError, "not good"),
        ("link", StageError, "plain files"),
        ("nothing", StageError, "fail wrote nothing"),
    ],
)
def test_a_failing_stage_leaves_nothing_and_keeps_what_was_done(
    folder: Path, tmp_path: Path, error: str, kind: type[Exception], says: str
) -> None:
    cache = tmp_path / "cache"
    stage = Fail(error, Letters(folder))
    with pytest.raises(kind, match=says) as caught:
        run(plan([stage]), cache)
    assert "\n" not in str(caught.value)
    assert list((cache / "fail").iterdir()) == []
    assert ran(run(plan([Letters(folder)]), cache)) == []


def test_an_input_that_changes_meanwhile_spoils_the_result(folder: Path, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Meddle(Stage):
        folder: Path

        def run(self, source: Inputs, out: Path) -> None:
            (out / "copy").write_text((source["folder"] / "a.txt").read_text())
            (source["folder"] / "a.txt").write_text("new")

    with pytest.raises(StageError, match="changed while it ran"):
        run(plan([Meddle(folder)]), tmp_path / "cache")
    assert list((tmp_path / "cache" / "meddle").iterdir()) == []


def damage(result: Result, how: str) -> None:
    entry = result.folder.parent
    victim = next(path for path in sorted(result.folder.rglob("*")) if path.is_file())
    match how:
        case "file gone":
            victim.unlink()
        case "file cut":
            victim.write_bytes(victim.read_bytes()[:-1])
        case "file changed":
            victim.write_bytes(bytes([victim.read_bytes()[0] ^ 1]) + victim.read_bytes()[1:])
        case "file added":
            (result.folder / "extra").write_text("x")
        case "seal gone":
            (entry / "sealed.json").unlink()
        case "seal cut":
            (entry / "sealed.json").write_bytes((entry / "sealed.json").read_bytes()[:40])
        case "seal of another kind":
            (entry / "sealed.json").write_text('{"format": 1, "files": []}')
        case "result is a file":
            for path in sorted(result.folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            result.folder.rmdir()
            result.folder.write_text("x")


DAMAGES = (
    "file gone",
    "file cut",
    "file changed",
    "file added",
    "seal gone",
    "seal cut",
    "seal of another kind",
    "result is a file",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_result_is_made_again(folder: Path, tmp_path: Path, how: str) -> None:
    last = chain(folder)
    sound = run(plan([last]), tmp_path / "cache")
    before = {result.stage.title + result.digest: tree(result.folder) for result in sound}
    for result in list(sound):
        damage(result, how)
        again = run(plan([last]), tmp_path / "cache")
        assert ran(again) == [result.stage.name]
        assert {each.stage.title + each.digest: tree(each.folder) for each in again} == before
    assert list((tmp_path / "cache").glob("*/.tmp-*")) == []


def test_verify_reads_every_byte(folder: Path, tmp_path: Path) -> None:
    """Bit rot keeps a file's times, so its remembered digest hides it; here the memo is made to say so."""
    last, cache = chain(folder), tmp_path / "cache"
    victim = run(plan([last]), cache)[last].folder / "part0.bin"
    sound = hashlib.sha256(victim.read_bytes()).hexdigest()
    victim.write_bytes(b"?" + victim.read_bytes()[1:])
    at = victim.stat()
    row = [at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns, sound]
    (cache / "digests.json").write_text(json.dumps({"format": 1, "files": {str(victim): row}}))
    assert ran(run(plan([last]), cache)) == []
    assert ran(run(plan([last]), cache, verify=True)) == ["join"]


def test_runs_side_by_side_agree(folder: Path, tmp_path: Path) -> None:
    last = chain(folder, pause_s=0.01)
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(run, plan([last]), tmp_path / "cache") for _ in range(6)]
        results = [future.result()[last] for future in futures]
    assert len({result.digest for result in results}) == 1
    assert ran(run(plan([last]), tmp_path / "cache")) == []
    assert list((tmp_path / "cache").glob("*/.tmp-*")) == []


def test_a_cache_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StageError, match="POCKETVL_CACHE"):
        run(plan([chain(folder)]), tmp_path / "cache")


def test_an_unknown_input_name_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Lost(Stage):
        letters: Path

        def run(self, source: Inputs, out: Path) -> None:
            source["leters"]

    with pytest.raises(StageError, match=r"'leters'; there are letters"):
        run(plan([Lost(folder)]), tmp_path / "cache")
