"""A full disk is one short line, whichever library was writing; with room again, the same command goes on."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pocketvl.arrays import open_array
from pocketvl.errors import RecipeError, StageError
from pocketvl.stage import Inputs, Stage, plan, publish, run
from pocketvl_runtime.disk import NoSpaceError, full_disk, reason

ROOT = Path(__file__).parents[2]
WAYS = ("safetensors", "torch", "npy", "npz", "json", "array", "onnx", "copy", "picture", "tokenizer")
# In a mount namespace of its own: a small disk is mounted, a stage fills it, room is made, and it runs again.
ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from pocketvl.errors import StageError
from pocketvl.stage import plan, run
from tests.stage.test_full_disk import Write
disk, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
for way in sys.argv[3:]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    stage = Write(elsewhere, way)
    try:
        run(plan([stage]), disk / "cache")
        print(way, "wrote more than there is room for")
    except StageError as error:
        print(way, error)
    left = [each for each in (disk / "cache").rglob("*") if each.is_file() and each.name != "digests.json"]
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    run(plan([stage]), disk / "cache")
    print(way, "then", len(left))
    subprocess.run(["umount", disk], check=True)
"""


@dataclass(frozen=True)
class Write(Stage):
    """Four megabytes, by one of the libraries that stages write with."""

    version: ClassVar[int] = 1

    large: Path
    way: str

    def run(self, source: Inputs, out: Path) -> None:
        values = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
        if self.way == "safetensors":
            from safetensors.numpy import save_file

            save_file({"w": values}, out / "w.safetensors")
        elif self.way == "torch":
            import torch

            torch.save(torch.from_numpy(values), out / "w.pt")
        elif self.way == "npy":
            np.save(out / "w.npy", values)
        elif self.way == "npz":
            np.savez(out / "w.npz", w=values)
        elif self.way == "json":
            (out / "w.json").write_text(str(values.tolist()))
        elif self.way == "array":
            open_array(out / "w.npy", np.float32, values.shape)[:] = values
        elif self.way == "onnx":
            import onnx

            graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(values, "w")])
            onnx.save(onnx.helper.make_model(graph), out / "w.onnx")
        elif self.way == "copy":
            shutil.copytree(source["large"], out, dirs_exist_ok=True)
        elif self.way == "picture":
            from PIL import Image

            Image.fromarray(values.view(np.uint8).reshape(2000, 2000)).save(out / "w.png")
        else:
            from tokenizers import Tokenizer, models

            vocabulary = {f"word number {k}": k for k in range(200_000)}
            Tokenizer(models.WordLevel(vocabulary, "word number 0")).save(str(out / "tokenizer.json"))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What came of each way on the small disk."""
    root = tmp_path_factory.mktemp("disk")
    (root / "disk").mkdir()
    (root / "large").mkdir()
    for k in range(60):
        (root / "large" / f"a file with quite a long name, number {k}").write_bytes(bytes(70_000))
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", ON_A_SMALL_DISK]
    command += [str(root / "disk"), str(root / "large"), *WAYS]
    may = (
        shutil.which("unshare")
        and not subprocess.run(
            ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", root / "disk"],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not may:
        pytest.skip("no disk can be mounted here: it takes unshare, and user namespaces")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr  # -7 would be SIGBUS
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        way, _, rest = line.partition(" ")
        found.setdefault(way, []).append(rest)
    return {"root": [str(root)], **found}


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_that_fills_the_disk_says_so_and_goes_on_when_there_is_room(
    said: dict[str, list[str]], way: str
) -> None:
    first, then = said[way]
    cache = re.escape(str(Path(said["root"][0], "disk", "cache", "write")))
    needed = ", 4.0 MB needed" if way == "array" else ""
    told = (
        rf"write failed: no space left on the disk of {cache} \(\d\.\d MB free{needed}\); free some space .*"
    )
    assert re.fullmatch(told, first)
    assert len(first) < 300
    assert then == "then 0"  # nothing half written stayed


def test_the_first_of_many_files_speaks_for_all(tmp_path: Path) -> None:
    entries = [(f"/from/{k}", f"/to/{k}", f"[Errno 13] Permission denied: '/to/{k}'") for k in range(100)]
    assert reason(shutil.Error(entries)) == "Permission denied"
    entries = [("/from/a", str(tmp_path / "a"), "[Errno 28] No space left on device: '/to/a'")] * 100
    told = full_disk(shutil.Error(entries))
    assert told is not None
    assert told.startswith(f"no space left on the disk of {tmp_path} (")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Exception("No space left on device (os error 28)"),
        RuntimeError("I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_whoever_says_it_in_whatever_words_a_full_disk_is_noticed(error: Exception, tmp_path: Path) -> None:
    for each in (error, _caused(error)):
        told = full_disk(each, tmp_path)
        assert told is not None
        assert str(tmp_path) in told
    assert full_disk(OSError(errno.EACCES, "Permission denied"), tmp_path) is None


def _caused(error: Exception) -> Exception:
    outer = RuntimeError("could not convert")
    outer.__cause__ = error
    return outer


def test_room_for_an_array_is_taken_when_it_is_opened(tmp_path: Path) -> None:
    array = open_array(tmp_path / "a.npy", np.uint8, (300_000,))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 300_000
    array[7] = 9
    assert open_array(tmp_path / "a.npy", np.uint8, (300_000,))[7] == 9


def test_an_array_that_finds_no_room_leaves_no_file(tmp_path: Path) -> None:
    size = 1 << 42  # as a hole, a file may be as large
    if shutil.disk_usage(tmp_path).free > size:
        pytest.skip("there is room for four terabytes")
    with pytest.raises(NoSpaceError) as refused:
        open_array(tmp_path / "a.npy", np.uint8, (size,))
    assert refused.value.needed_bytes > size
    assert not (tmp_path / "a.npy").exists()


@dataclass(frozen=True)
class Refuse(Stage):
    """Refuses, for a reason of its own."""

    version: ClassVar[int] = 1

    def run(self, source: Inputs, out: Path) -> None:
        raise RecipeError("a target cannot be reached")


def test_what_pocketvl_itself_refuses_is_not_taken_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketvl_runtime.disk._NEARLY_FULL_BYTES", 1 << 60)  # every disk is full
    with pytest.raises(RecipeError, match=r"^a target cannot be reached$"):
        run(plan([Refuse()]), tmp_path)


def test_a_place_that_cannot_be_written_is_one_short_line(tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.mkdir()
    for k in range(100):
        (result / f"{k}").write_text("x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError) as refused:
        publish(result, tmp_path / "file" / "out", lambda folder: None)
    assert len(str(refused.value)) < 300
