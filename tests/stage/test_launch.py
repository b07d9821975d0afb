"""Of several processes of one launch the first makes results; the others help where it calls them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl.launch import call_others, is_called, is_first, processes
from pocketvl.stage.scratch import claim_folder

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from pocketvl.launch import is_first
from pocketvl.stage import Inputs, Stage, plan, run

@dataclass(frozen=True)
class Prepare(Stage):
    def run(self, source, out):
        assert is_first()
        (out / "data").write_text("prepared")

@dataclass(frozen=True)
class Train(Stage):
    resumes: ClassVar[bool] = True
    data: Stage
    def run(self, source, out):
        mine = source.work / ("first" if is_first() else "other")
        mine.write_text((source["data"] / "data").read_text())
        while len(list(source.work.glob("first")) + list(source.work.glob("other"))) < 2:
            time.sleep(0.01)
        (out / "who").write_text(mine.name)

last = Train(Prepare())
print((run(plan([last]), Path(sys.argv[1]))[last].folder / "who").read_text())
"""


def _start(cache: Path, rank: int, port: str = "1") -> subprocess.Popen[str]:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_PORT": port}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT / "exporter"), str(ROOT / "runtime")))}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cache)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return stdout.strip()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_train_and_the_firsts_result_is_everyones(tmp_path: Path, order: tuple[int, int]) -> None:
    started = []
    for rank in order:
        started.append(_start(tmp_path, rank))
        time.sleep(0.5)
    assert [_end(each) for each in started] == ["first", "first"]
    assert not list(tmp_path.glob("*/*.work"))


def test_none_trains_what_somebody_else_came_to_the_end_of(tmp_path: Path) -> None:
    """Another launch, in the same cache, holds the training's folder; then its result is there."""
    for rank in (0, 1):
        process = _start(tmp_path / "whole", rank)
        if rank:
            _end(process)
    (sealed,) = (tmp_path / "whole/train").glob("*/")
    here = tmp_path / "cache/train"
    here.mkdir(parents=True)
    held = claim_folder(here / f"{sealed.name}.work")
    waiting = [_start(tmp_path / "cache", rank) for rank in (0, 1)]
    time.sleep(1.5)
    assert [each.poll() for each in waiting] == [None, None]
    assert not (here / f"{sealed.name}.work/other").exists()  # it was not called
    sealed.rename(here / sealed.name)
    os.close(held)
    assert [_end(each) for each in waiting] == ["first", "first"]


def test_a_call_counts_in_its_own_launch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert not is_called(tmp_path)
    call_others(tmp_path)
    assert is_called(tmp_path)
    monkeypatch.setenv("MASTER_PORT", "2")
    assert not is_called(tmp_path)


@pytest.mark.parametrize(
    ("environment", "count", "first"),
    [
        ({}, 1, True),
        ({"RANK": "1"}, 1, True),
        ({"WORLD_SIZE": "", "RANK": ""}, 1, True),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 4, True),
        ({"WORLD_SIZE": "4", "RANK": "3"}, 4, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, 2, False),
    ],
)
def test_a_launch_is_told_by_its_variables(
    environment: dict[str, str], count: int, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processes(), is_first()) == (count, first)


def test_a_command_that_is_one_process_says_so() -> None:
    command = [str(Path(sys.executable).with_name("pocketvl")), "data", "tabletop", "--seed", "1"]
    done = subprocess.run(
        [*command, "--count", "1", "-o", "x"],
        env=os.environ | {"WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "data runs as one process, but 2 were started (WORLD_SIZE)" in done.stderr
