"""A command that finds everything in the cache answers at once: no import of it takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Exported, pocketvl
from tests.packaging.test_walls import HEAVY

SLOW = HEAVY - {"safetensors"}  # which is imported in 2 ms, and reads what weights a folder has

# Runs the command and says what was imported by its end, whatever the end is.
_COMMAND = """
import sys
place = sys.argv.pop()
from pocketvl.cli import main
try:
    main()
finally:
    open(place, "w").write(" ".join(sys.modules))
"""
RECIPE = """
[[steps]]
kind = "prune"
ratio = 0.5
score = "gate"
learn = { phases = [{ steps = 2 }], batch_size = 8 }

[[steps]]
kind = "qat"
training = { phases = [{ components = ["image_encoder"], steps = 1 }], batch_size = 8 }
"""


def heavy_imports(tmp_path: Path, cache: Path, *words: object) -> set[str]:
    """What of the slow packages a command imported, which had to do nothing and to succeed."""
    place = tmp_path / "modules"
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *map(str, words), str(place)],
        capture_output=True,
        text=True,
        env=os.environ | {"POCKETVL_CACHE": str(cache)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "done in" not in done.stderr  # no stage ran
    return SLOW & set(place.read_text().split())


def test_an_export(exported: Exported, tmp_path: Path) -> None:
    command = [*exported.command(exported.bundle), "--keep-failing"]
    assert heavy_imports(tmp_path, exported.cache, *command) == set()


def test_a_compression_with_training_and_its_costs(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["compress", exported.checkpoint, "--recipe", tmp_path / "recipe.toml", "--data", exported.data]
    command += ["-o", tmp_path / "small"]
    first = pocketvl(*command, cache=exported.cache)
    assert first.returncode == 0, first.stderr
    assert heavy_imports(tmp_path, exported.cache, *command) == set()
    assert pocketvl(*command, cache=exported.cache).stdout == first.stdout


def test_scenes(tmp_path: Path) -> None:
    command = ["data", "tabletop", "--seed", 5, "--count", 3, "-o", tmp_path / "scenes"]
    cache = tmp_path / "cache"
    assert pocketvl(*command, cache=cache).returncode == 0
    assert heavy_imports(tmp_path, cache, *command) == set()
