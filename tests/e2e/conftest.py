"""One tiny seeded model, exported once through the command line for all end-to-end tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny import make_tiny_clip

# Where libraries may put files instead of the home folder, and what tells them to be quiet.
_TOLD = (
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MPLCONFIGDIR",
    "ORT_DISABLE_TELEMETRY",
    "TORCHINDUCTOR_CACHE_DIR",
)
UNTOLD = ("env", *(f"--unset={name}" for name in _TOLD))


def pocketvl(
    *words: object, cache: Path, before: Sequence[object] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the host's command as a user does; `before` is a command that runs it, as strace does."""
    program = Path(sys.executable).with_name("pocketvl")
    command = [str(word) for word in (*before, program, *words)]
    environment = os.environ | {"POCKETVL_CACHE": str(cache)} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def recording_network(calls: Path) -> list[object]:
    """A command that runs another one and writes down what it asks of the network; empty where it cannot."""
    strace = shutil.which("strace")
    if strace is None:
        return []
    command = [strace, "--follow-forks", "--seccomp-bpf", "--quiet=all", "--trace=%network"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return []
    return [*command, "--output", calls]


@dataclass(frozen=True)
class Exported:
    """A bundle with all that it was made from.

    Attributes:
        checkpoint: a tiny CLIP.
        calibration: a dataset folder.
        data: another one.
        bundle: what was exported.
        cache: what the export was given.
        home: the home folder that it ran with, which was empty.
        calls: what it asked of the network; missing where that cannot be recorded.
        first: what it said.
    """

    checkpoint: Path
    calibration: Path
    data: Path
    bundle: Path
    cache: Path
    home: Path
    calls: Path
    first: subprocess.CompletedProcess[str]

    def again(self, *more: object) -> subprocess.CompletedProcess[str]:
        return pocketvl(*self.command(self.bundle), *more, cache=self.cache)

    def command(self, out: Path) -> list[object]:
        calibration = ["--calibration", self.calibration, "--data", self.data]
        return ["export", self.checkpoint, "-o", out, *calibration, "--gate", "match_hard=20,retrieval_r1=20"]


def make_outlier_clip(folder: Path) -> Path:
    """A tiny CLIP with one dead neuron whose huge activation takes the whole int8 grid of its layer."""
    make_tiny_clip(folder, seed=3)
    weights = load_file(folder / "model.safetensors")
    layer = "vision_model.encoder.layers.0.mlp"
    weights[f"{layer}.fc1.bias"][0] = 3000.0
    weights[f"{layer}.fc2.weight"][:, 0] = 0.0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("e2e")
    for name, seed, count in (("calibration", 21, 16), ("data", 22, 100)):
        (root / name).mkdir()
        write_tabletop(root / name, seed, count, size=40)
    make_tiny_clip(root / "tiny-clip", seed=3)
    made = Exported(
        root / "tiny-clip",
        root / "calibration",
        root / "data",
        root / "bundle",
        root / "cache",
        root / "home",
        root / "calls",
        subprocess.CompletedProcess([], 0),
    )
    made.home.mkdir()
    first = pocketvl(
        *made.command(made.bundle),
        "--keep-failing",
        cache=made.cache,
        before=[*UNTOLD, *recording_network(made.calls)],
        HOME=str(made.home),
    )
    return Exported(**{**vars(made), "first": first})
