"""Wheels built from this tree, and bare environments that hold the runtime's and one engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.conftest import whole_bundle

__all__ = ["whole_bundle"]
ROOT = Path(__file__).parents[2]
ThinVenv = Callable[[str], Path]


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """Runs a command and gives its output; where it fails, the test says what it said."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(project: Path, out: Path) -> tuple[Path, Path]:
    """Builds a distribution without the network: its wheel, made from its sdist, and the sdist."""
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, project)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="session")
def runtime_dist(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of `pocketvl-runtime`."""
    return build(ROOT / "runtime", tmp_path_factory.mktemp("runtime-dist"))


@pytest.fixture(scope="session")
def pocketvl_dist(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of `pocketvl`."""
    return build(ROOT, tmp_path_factory.mktemp("pocketvl-dist"))


@pytest.fixture(scope="session")
def thin_venv(tmp_path_factory: pytest.TempPathFactory, runtime_dist: tuple[Path, Path]) -> ThinVenv:
    """Makes, once per engine, a bare environment with the runtime's wheel and that engine alone.

    `thin_venv("onnx")` and `thin_venv("litert")` give its `bin` folder: `bin / "pocketvl-run"`, `bin /
    "python"`. Versions and hashes are those of requirements/runtime.txt.
    """
    made: dict[str, Path] = {}
    uv = Path(sys.executable).parent / "uv"

    def make(engine: str) -> Path:
        if engine not in made:
            venv = tmp_path_factory.mktemp(f"thin-{engine}") / "venv"
            call(uv, "venv", "--quiet", "--python", sys.executable, venv)
            wanted = f"pocketvl-runtime[{engine}] @ {runtime_dist[0].as_uri()}"
            lock = ROOT / "requirements" / "runtime.txt"
            python = venv / "bin" / "python"
            call(uv, "pip", "install", "--quiet", "--python", python, "--constraint", lock, wanted)
            made[engine] = venv / "bin"
        return made[engine]

    return make
