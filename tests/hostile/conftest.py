"""The small bundle of the runtime's tests, and the command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.runtime.bundles import picture
from tests.runtime.conftest import bundle, whole_bundle

__all__ = ["bundle", "whole_bundle"]
Refuses = Callable[..., str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A good picture."""
    path = tmp_path / "good.png"
    picture((30, 20)).save(path)
    return path


@pytest.fixture
def refuses() -> Refuses:
    """Runs `pocketvl-run`, which must exit with 1 and say one clear line on stderr; gives that line."""

    def run(*arguments: str | bytes | Path) -> str:
        done = run_command(arguments)
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("note: ", "INFO: "))]
        assert line.startswith("error: ")
        return line

    return run


def run_command(
    arguments: Sequence[str | bytes | Path], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pocketvl_runtime", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="strict",
        env={"PYTHONWARNINGS": "default"} | os.environ | {"RUST_BACKTRACE": "0"},
        cwd=cwd,
        timeout=120,
        check=False,
    )
