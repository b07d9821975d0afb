"""Peak memory of calibrating a small CLIP-like component over few and over many streamed samples.

Each count runs in a process of its own, since a process's peak never falls.

    python -m bench.calibration_memory
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

IMAGE_SIZE, PATCH_SIZE, HIDDEN, HEADS, BLOCKS = 64, 8, 128, 4, 4


def peak_mb() -> float:
    """The most memory this process ever had, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB on Linux


def stream(count: int) -> Iterator[NDArray[np.uint8]]:
    """Random pictures [1, H, W, 3], each made when it is asked for."""
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.integers(0, 256, (1, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)


def component() -> nn.Module:
    """A seeded vision transformer: patches, attention with separate projections, GELU, a projection."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
                nn.Linear(HIDDEN, HIDDEN) for _ in range(4)
            )
            self.fc1, self.fc2 = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            batch, length, _ = hidden.shape
            normed = self.norm1(hidden)
            query, key, value = (
                project(normed).reshape(batch, length, HEADS, -1).transpose(1, 2)  # [B, heads, T, width]
                for project in (self.q_proj, self.k_proj, self.v_proj)
            )
            scores = (query @ key.transpose(2, 3) / (HIDDEN // HEADS) ** 0.5).softmax(-1)
            hidden = hidden + self.out_proj((scores @ value).transpose(1, 2).reshape(batch, length, HIDDEN))
            out: torch.Tensor = hidden + self.fc2(nn.functional.gelu(self.fc1(self.norm2(hidden))))
            return out

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, HIDDEN, PATCH_SIZE, PATCH_SIZE)
            self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
            self.projection = nn.Linear(HIDDEN, 64)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            patches = self.patches(pixels.float().permute(0, 3, 1, 2) / 255)  # [B, hidden, rows, columns]
            out: torch.Tensor = self.projection(self.blocks(patches.flatten(2).transpose(1, 2)).mean(1))
            return out

    torch.manual_seed(0)
    return Encoder().eval().requires_grad_(False)


def measure(count: int) -> dict[str, Any]:
    """Calibrate over so many samples, in this process."""
    from pocketvl.observe.calibrate import calibrate
    from pocketvl.observe.settings import CalibrationSettings

    module = component()
    before = peak_mb()
    start = time.perf_counter()
    found = calibrate(module, stream(count), CalibrationSettings(second_moments=True))
    seconds = time.perf_counter() - start
    return {"layers": len(found.layers), "before_mb": before, "peak_mb": peak_mb(), "seconds": seconds}


@click.command()
@click.option("--few", default=64, show_default=True, help="Samples of the first run.")
@click.option("--many", default=4096, show_default=True, help="Samples of the second.")
@click.option("--alone", type=int, hidden=True, help="Measure this many in this process.")
def main(few: int, many: int, alone: int | None) -> None:
    """Print the peak resident memory of both runs, and their ratio."""
    if alone is not None:
        click.echo(json.dumps(measure(alone)))
        return
    peaks = []
    for count in (few, many):
        command = [sys.executable, __file__, "--alone", str(count)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(answer)
        peaks.append(result["peak_mb"])
        click.echo(
            f"{count:6,} samples, {result['layers']} layers: peak {result['peak_mb']:.1f} MB "
            f"({result['before_mb']:.1f} MB before the first), {result['seconds']:.1f} s"
        )
    click.echo(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
