"""Commands without a home folder, without standard streams, and with streams that take nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import whole_bundle

__all__ = ["whole_bundle"]
BIN = Path(sys.executable).parent
HELPS = [
    *(("pocketvl-run", *name) for name in ((), *((n,) for n in ("info", "match", "classify", "embed")))),
    ("pocketvl-run", "selftest"),
    ("pocketvl-run", "bench"),
    *(("pocketvl", *name) for name in ((), *((n,) for n in ("export", "search", "compress", "verify")))),
    ("pocketvl", "train"),
    ("pocketvl", "data"),
    ("pocketvl", "data", "tabletop"),
]
PAINT = ("data", "tabletop", "--seed", "1", "--count", "2", "-o")
# A user id without an entry in the user database and without HOME, as in many containers.
NOBODY = """
import pwd, sys
from unittest import mock
def missing(uid): raise KeyError(uid)
with mock.patch.object(pwd, "getpwuid", missing):
    from pocketvl.cli import main
    main()
"""


def shell(line: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash; PATH begins with this environment's commands."""
    told = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment
    told.pop("POCKETVL_CACHE", None)
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=told, capture_output=True, text=True, check=False
    )


def homeless(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {k: v for k, v in os.environ.items() if k not in ("HOME", "POCKETVL_CACHE")} | environment
    command = [sys.executable, "-c", NOBODY, *words]
    return subprocess.run(command, cwd=cwd, env=told, capture_output=True, text=True, check=False)


def test_without_a_home_help_is_printed_and_a_cache_is_asked_for(tmp_path: Path) -> None:
    assert homeless("--help", cwd=tmp_path).returncode == 0
    helped = homeless("export", "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "~/.cache/pocketvl" in helped.stdout
    refused = homeless(*PAINT, "out", cwd=tmp_path)
    assert refused.returncode == 2
    assert "name one with --cache (POCKETVL_CACHE)" in refused.stderr.splitlines()[-1]
    assert homeless(*PAINT, "out", "--cache", "c", cwd=tmp_path).returncode == 0
    assert homeless(*PAINT, "out2", cwd=tmp_path, POCKETVL_CACHE="c").returncode == 0


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root becomes another user"
)
def test_a_user_that_nobody_knows_gets_help() -> None:
    whoami = "setpriv --reuid 12345 --regid 12345 --clear-groups"
    if shell(f"{whoami} {BIN / 'python'} -c ''").returncode:
        pytest.skip("other users cannot read this environment")
    done = shell(f"env -u HOME {whoami} pocketvl --help")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_cannot_be_written_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = shell(f"pocketvl {' '.join(PAINT)} out", cwd=tmp_path, HOME=str(tmp_path / "file"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: cannot write the cache at .*/file/\.cache.*: Not a directory; ", line)
    assert line.endswith("name another folder with --cache (POCKETVL_CACHE)")


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_is_printed_whatever_is_closed(words: tuple[str, ...]) -> None:
    command = " ".join((*words, "--help"))
    expected = shell(command)
    assert expected.stdout.startswith(f"Usage: {' '.join(words)}")
    closed = shell(f"{command} <&- 2>&-", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert (closed.returncode, closed.stdout) == (0, expected.stdout)
    full = shell(f"{command} >/dev/full")
    assert full.returncode == 1
    assert re.fullmatch(r"error: (stdout: )?no space left on device\n", full.stderr, re.IGNORECASE)


QUESTIONS = (
    "info {bundle}",
    "match {bundle} --image {image} --text 'a red cube' --text blau",
    "classify {bundle} --image {image} --label cube --label ball",
    "embed {bundle} --text cat --image {image}",
    "selftest {bundle}",
    "bench {bundle} --runs 1 --variant onnx-int8",
)


@pytest.mark.parametrize("question", QUESTIONS, ids=[q.split()[0] for q in QUESTIONS])
@pytest.mark.parametrize("flags", ["", " --json"])
def test_an_answer_comes_on_stdout_whatever_else_is_closed(
    whole_bundle: Path, question: str, flags: str
) -> None:
    image = whole_bundle / "golden" / "images" / "wide.jpg"
    command = f"pocketvl-run {question.format(bundle=whole_bundle, image=image)}{flags}"
    expected = shell(command)
    assert expected.returncode == 0, expected.stderr
    for closing in ("2>&-", "<&- 2>&-"):
        done = shell(f"{command} {closing}")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == len(expected.stdout.splitlines()) > 0
        if not flags and "bench" not in question:  # these tell times
            assert done.stdout == expected.stdout
    assert shell(f"{command} <&- >&- 2>&-").returncode == 0
    assert shell(f"{command} 2>/dev/null | head -c 0; exit ${{PIPESTATUS[0]}}").returncode in (0, 1)
    full = shell(f"{command} >/dev/full")
    assert full.returncode == 1
    assert re.fullmatch(
        r"error: (stdout: )?no space left on device", full.stderr.splitlines()[-1], re.IGNORECASE
    )


def test_a_closed_stream_is_not_the_next_file_that_is_opened(tmp_path: Path) -> None:
    """What is printed from below Python goes to numbers 1 and 2, whatever they are."""
    code = (
        "import click, os\n"
        "from pocketvl_runtime.console import run_command\n"
        "@click.command()\n"
        "def command():\n"
        "    with open('data', 'wb') as data:\n"
        "        os.write(1, b'noise'); os.write(2, b'noise')\n"
        "        os.system('echo noise; echo noise >&2')\n"
        "run_command(command, 'it')\n"
    )
    (tmp_path / "it.py").write_text(code)
    done = shell("python it.py <&- >&- 2>&-", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


def test_a_command_works_with_all_streams_closed(tmp_path: Path) -> None:
    done = shell(f"pocketvl {' '.join(PAINT)} out --cache c <&- >&- 2>&-", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out" / "samples.jsonl").is_file()
