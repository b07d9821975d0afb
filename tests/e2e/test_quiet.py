"""A command leaves nothing in the home folder, and asks nobody on the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import UNTOLD, Exported, pocketvl, recording_network

TRAINING = """
[[steps]]
kind = "learn"
learn = { phases = [{ steps = 2 }], batch_size = 8 }
"""


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def asked(calls: Path) -> list[str]:
    """The calls that name an address of the internet, or open a socket for one."""
    if not calls.exists():
        pytest.skip(
            "what a command asks of the network cannot be recorded here: strace is missing or may not"
        )
    return [line for line in calls.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]


def test_the_recording_would_notice(tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    before = recording_network(tmp_path / "calls")
    subprocess.run([*map(str, before), sys.executable, "-c", code], capture_output=True, check=False)
    assert any("connect(" in call for call in asked(tmp_path / "calls"))


def test_an_export_leaves_the_home_folder_as_it_was(exported: Exported) -> None:
    assert exported.first.returncode == 0, exported.first.stderr
    assert files_below(exported.home) == []


def test_an_export_asks_nobody(exported: Exported) -> None:
    assert asked(exported.calls) == []


def test_a_training_leaves_nothing_and_asks_nobody(exported: Exported, tmp_path: Path) -> None:
    home, calls = tmp_path / "home", tmp_path / "calls"
    home.mkdir()
    (tmp_path / "recipe.toml").write_text(TRAINING)
    command = ["compress", exported.checkpoint, "--recipe", tmp_path / "recipe.toml", "--data", exported.data]
    before = [*UNTOLD, *recording_network(calls)]
    command += ["-o", tmp_path / "small"]
    done = pocketvl(*command, cache=exported.cache, before=before, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert files_below(home) == []
    assert asked(calls) == []


@pytest.mark.parametrize("variant", ["onnx-int8", "tflite-int8"])
def test_an_answer_leaves_nothing_and_asks_nobody(exported: Exported, tmp_path: Path, variant: str) -> None:
    home, calls = tmp_path / "home", tmp_path / "calls"
    home.mkdir()
    image = next((exported.bundle / "golden" / "images").iterdir())
    program = Path(sys.executable).with_name("pocketvl-run")
    command = [*UNTOLD, f"HOME={home}", *recording_network(calls), program, "match", exported.bundle]
    command += ["--variant", variant, "--image", image, "--text", "a red cube"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert files_below(home) == []
    assert asked(calls) == []
