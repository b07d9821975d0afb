"""`kill -9` at any moment, then the same command: it goes on where it was and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl.stage import Store
from pocketvl.stage.scratch import SCRATCH, scratch_folder

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.015


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").write_text(name * 2000)
    return folder


def start(cache: Path, folder: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stage.toy", str(cache), str(folder), str(out), str(PAUSE_S)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.splitlines()


def numbers(said: list[str], what: str) -> set[str]:
    return {line.removeprefix(what) for line in said if line.startswith(what)}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "digests.json"
    }


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    begin = time.perf_counter()
    finish(start(tmp_path / "calm", folder, tmp_path / "calm-out"))
    whole_s = time.perf_counter() - begin
    wanted = tree(tmp_path / "calm"), tree(tmp_path / "calm-out")
    rng = random.Random(3)
    resumed = 0
    for trial in range(8):
        cache, out = tmp_path / f"cache{trial}", tmp_path / f"out{trial}"
        finished: set[str] = set()
        for _ in range(2):
            process = start(cache, folder, out)
            time.sleep(whole_s * rng.uniform(0.25, 0.95))
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[0].split("\n")
            assert not finished & numbers(said, "started ")
            finished |= numbers(said, "done ")
        resumed += len(finished)
        said = finish(start(cache, folder, out))
        assert not finished & numbers(said, "started ")
        assert (tree(cache), tree(out)) == wanted
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
    assert resumed > 0


def test_processes_side_by_side_leave_one_whole_result(folder: Path, tmp_path: Path) -> None:
    finish(start(tmp_path / "calm", folder, tmp_path / "calm-out"))
    together = [start(tmp_path / "cache", folder, tmp_path / "out") for _ in range(3)]
    for process in together:
        finish(process)
    assert tree(tmp_path / "cache") == tree(tmp_path / "calm")
    assert tree(tmp_path / "out") == tree(tmp_path / "calm-out")


def test_a_half_written_folder_of_the_dead_goes_and_one_of_the_living_stays(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    code = (
        "import sys, time, pathlib; from pocketvl.stage.scratch import *\n"
        "with scratch_folder(pathlib.Path(sys.argv[1]), SCRATCH) as f:\n"
        "    (f / 'half').write_text('x'); print(f, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "letters")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    store = Store(tmp_path)
    with scratch_folder(tmp_path / "letters", SCRATCH) as ours:
        with store.draft("letters"):
            assert theirs.exists()
            assert ours.exists()
        process.kill()
        process.communicate()
        with store.draft("letters"):
            assert not theirs.exists()
            assert ours.exists()
    assert list((tmp_path / "letters").iterdir()) == []
