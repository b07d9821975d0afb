"""A stage that resumes finds what an interrupted run left, until its result is sealed."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pocketvl.errors import DataError
from pocketvl.stage import Inputs, Stage, plan, run

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.1


@dataclass(frozen=True)
class Count(Stage):
    """Counts in steps, and keeps each; a file beside the input says where to stop this time."""

    resumes: ClassVar[bool] = True

    folder: Path
    upto: int = 5
    pause_s: float = 0.0

    def run(self, source: Inputs, out: Path) -> None:
        assert source.work is not None
        stop = source["folder"].parent / "stop"
        for step in range(self.upto):
            if (source.work / str(step)).exists():
                continue
            if stop.exists() and step == int(stop.read_text()):
                raise DataError("interrupted")
            time.sleep(self.pause_s)
            (source.work / str(step)).write_text("done")
            source.progress(step, self.upto, "step")
            with (source["folder"].parent / "taken.txt").open("a") as taken:
                taken.write(f"{step}\n")
        (out / "all").write_text("".join(path.name for path in sorted(source.work.iterdir())))


@dataclass(frozen=True)
class Plain(Stage):
    """Says whether it has a folder to resume from."""

    upto: int = 5

    def run(self, source: Inputs, out: Path) -> None:
        (out / "work").write_text(str(source.work))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a").write_text("a")
    return folder


def interrupt(folder: Path, at: int | None) -> None:
    (folder.parent / "stop").write_text("-1" if at is None else str(at))


def taken(folder: Path) -> list[int]:
    return [int(line) for line in (folder.parent / "taken.txt").read_text().split()]


def works(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.work"))


def test_what_was_done_is_found_and_then_gone(folder: Path, tmp_path: Path) -> None:
    cache, stage = tmp_path / "cache", Count(folder)
    for at in (2, 4):
        interrupt(folder, at)
        with pytest.raises(DataError, match="interrupted"):
            run(plan([stage]), cache)
        (work,) = works(cache)
        assert sorted(path.name for path in work.iterdir()) == [str(step) for step in range(at)]
    interrupt(folder, None)
    results = run(plan([stage]), cache)
    assert (results[stage].folder / "all").read_text() == "01234"
    assert taken(folder) == [0, 1, 2, 3, 4]
    assert works(cache) == []
    assert run(plan([stage]), cache)[stage].was_cached
    assert works(cache) == []


def test_other_settings_and_other_inputs_begin_anew(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    interrupt(folder, 2)
    for stage in (Count(folder), Count(folder, 7)):
        with pytest.raises(DataError, match="interrupted"):
            run(plan([stage]), cache)
    (folder / "a").write_text("b")
    with pytest.raises(DataError, match="interrupted"):
        run(plan([Count(folder)]), cache)
    assert len(works(cache)) == 3
    assert taken(folder) == [0, 1] * 3
    interrupt(folder, None)
    (folder / "a").write_text("a")
    run(plan([Count(folder, 7)]), cache)
    assert len(works(cache)) == 2
    assert taken(folder) == [*[0, 1] * 3, *range(2, 7)]


def test_the_result_does_not_depend_on_interruptions(folder: Path, tmp_path: Path) -> None:
    stage = Count(folder)
    interrupt(folder, None)
    calm = run(plan([stage]), tmp_path / "calm")[stage]
    interrupt(folder, 3)
    with pytest.raises(DataError, match="interrupted"):
        run(plan([stage]), tmp_path / "cache")
    interrupt(folder, None)
    assert run(plan([stage]), tmp_path / "cache")[stage].digest == calm.digest


def test_a_stage_that_does_not_resume_has_no_such_folder(tmp_path: Path) -> None:
    results = run(plan([Plain()]), tmp_path / "cache")
    assert (results[Plain()].folder / "work").read_text() == "None"
    assert works(tmp_path / "cache") == []


def start(folder: Path, cache: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from tests.stage.test_resume import Count\n"
        "from pocketvl.stage import plan, run\n"
        f"stage = Count(Path(sys.argv[1]), pause_s={PAUSE_S})\n"
        "run(plan([stage]), Path(sys.argv[2]), lambda event: print(event.kind, flush=True))"
    )
    command = [sys.executable, "-c", code, str(folder), str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_what_is_left_of_a_kill_after_the_result_was_sealed_goes(folder: Path, tmp_path: Path) -> None:
    cache, stage = tmp_path / "cache", Count(folder)
    interrupt(folder, 2)
    with pytest.raises(DataError, match="interrupted"):
        run(plan([stage]), cache)
    (work,) = works(cache)
    interrupt(folder, None)
    run(plan([stage]), cache)
    work.mkdir()
    (work / "0").write_text("left")
    assert run(plan([stage]), cache)[stage].was_cached
    assert works(cache) == []


def test_two_processes_do_not_work_in_one_folder(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    together = [start(folder, cache) for _ in range(2)]
    for process in together:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert taken(folder) == [0, 1, 2, 3, 4]  # one worked, the other waited for what it made
    assert works(cache) == []


def test_a_folder_of_a_killed_process_is_free(folder: Path, tmp_path: Path) -> None:
    process = start(folder, tmp_path / "cache")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate()
    begin = time.perf_counter()
    run(plan([Count(folder, pause_s=PAUSE_S)]), tmp_path / "cache")
    assert time.perf_counter() - begin < 10
    assert works(tmp_path / "cache") == []
