"""A bundle is replaced in one step, and nothing is replaced that is not a bundle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl.errors import StageError
from pocketvl.stage import check_replaceable, publish, replace_dir
from tests.stage.toy import written

LOOP = """
import sys
from pathlib import Path
from pocketvl.stage import publish
from tests.stage.toy import written
turn = 0
while True:
    turn += 1
    publish(Path(sys.argv[1 + turn % 2]), Path(sys.argv[3]), written)
    print(turn, flush=True)
"""


def make(folder: Path, text: str, files: int = 3) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    for number in range(files):
        (folder / f"{number}.bin").write_text(text)
    return folder


def texts(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.glob("*.bin")}


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(sys, "platform", "darwin")
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_new_takes_the_place_of_old(tmp_path: Path) -> None:
    destination = make(tmp_path / "b", "old")
    (destination / "stale").write_text("x")
    replace_dir(make(tmp_path / "n", "new"), destination, written)
    assert texts(destination) == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]
    assert not (destination / "stale").exists()


@pytest.mark.usefixtures("way")
def test_a_missing_or_empty_destination_is_fine(tmp_path: Path) -> None:
    replace_dir(make(tmp_path / "n", "new"), tmp_path / "deep" / "b", written)
    (tmp_path / "empty").mkdir()
    publish(tmp_path / "deep" / "b", tmp_path / "empty", written)
    assert texts(tmp_path / "empty") == texts(tmp_path / "deep" / "b") == {"new"}


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    new = make(tmp_path / "n", "new")
    for act in (replace_dir, publish):
        with pytest.raises(StageError, match="did not write"):
            act(new, home, written)
    with pytest.raises(StageError, match="not a folder"):
        replace_dir(new, home / "thesis.tex", written)
    with pytest.raises(StageError, match="did not write"):
        check_replaceable(home, written)
    assert (home / "thesis.tex").read_text() == "years of work"
    assert texts(new) == {"new"}


def test_folders_that_lie_in_each_other_are_refused(tmp_path: Path) -> None:
    outer = make(tmp_path / "outer", "outer")
    inner = make(outer / "inner", "inner")
    for new, destination in ((inner, outer), (outer, inner), (outer, outer)):
        with pytest.raises(StageError, match="in each other"):
            replace_dir(new, destination, written)
    assert texts(outer) == {"outer"}


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    real = make(tmp_path / "v1", "old")
    (tmp_path / "latest").symlink_to(real)
    publish(make(tmp_path / "n", "new"), tmp_path / "latest", written)
    assert (tmp_path / "latest").is_symlink()
    assert texts(real) == {"new"}


def test_publish_keeps_the_result(tmp_path: Path) -> None:
    result = make(tmp_path / "r", "new")
    publish(result, tmp_path / "b", written)
    (tmp_path / "b" / "0.bin").write_text("edited")
    assert texts(result) == {"new"}


def test_a_destination_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StageError, match=r"cannot write .*file/b: "):
        publish(make(tmp_path / "n", "new"), tmp_path / "file" / "b", written)


def test_a_swap_by_renames_that_was_killed_halfway_is_put_back(tmp_path: Path) -> None:
    destination = make(tmp_path / "b", "old")
    destination.rename(tmp_path / ".b.pocketvl-previous")
    with pytest.raises(StageError, match="did not write"):
        replace_dir(make(tmp_path / "n", "new"), destination, lambda folder: None)
    assert texts(destination) == {"old"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names at once")
def test_killed_at_any_moment_the_destination_is_old_or_new(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "1" * 200_000, 12), make(tmp_path / "two", "2" * 200_000, 12)
    destination = tmp_path / "b"
    publish(one, destination, written)
    rng = random.Random(5)
    turns = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(one), str(two), str(destination)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        for _ in range(rng.randint(1, 4)):
            turns += len(process.stdout.readline().split())
        time.sleep(rng.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(list(destination.glob("*.bin"))) == 12
        assert len(texts(destination)) == 1
    publish(one, destination, written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "one", "two"]
    assert turns > 8
