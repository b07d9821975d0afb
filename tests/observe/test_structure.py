"""Which linear gives a module's output is found by running it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from pocketvl.observe.structure import final_linear
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip


class Tail(nn.Module):
    """Two linears, and then whatever it is given."""

    def __init__(self, *after: nn.Module) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(4, 3), nn.Linear(8, 4)  # named the other way round than they run
        self.after = nn.Sequential(*after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.after(self.second(self.first(x)))
        return y


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Tail(), "second"),
        (Tail(nn.Softmax(-1)), "second"),  # without weights
        (Tail(nn.LayerNorm(3)), "second"),
        (Tail(nn.Linear(3, 7)), "after.0"),
        (Tail(nn.AvgPool1d(3)), None),  # what comes out is not what the linear gave
        (Tail(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 3, 1)), None),  # a convolution gives it
        (nn.ReLU(), None),
    ],
)
def test_the_last_linear_gives_the_output_if_it_is_as_large(module: nn.Module, expected: str | None) -> None:
    assert final_linear(module.eval(), torch.zeros(1, 8)) == expected


def test_of_a_clip_it_is_the_projection(tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    pixels = torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    assert final_linear(source.component("image_encoder").module, pixels) == "visual_projection"
    assert (
        final_linear(source.component("text_encoder").module, torch.zeros(1, TEXT_LENGTH, dtype=torch.int32))
        == "text_projection"
    )
