"""TFLite graphs hold no op that only moves numbers to where they already are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.graph import op_counts_tflite, read_tflite
from tests.lower.readers import unused_in

HEADS, SIZE, LENGTH, BATCH = 2, 4, 9, 1
WIDTH = HEADS * SIZE


class Attending(nn.Module):
    """Patches of a picture, a LayerNorm, an attention and a gate: what encoders are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, 2)
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "norm" not in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.patches(pixels.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        normed = self.norm(hidden)
        query, key, value = (
            linear(normed).view(BATCH, LENGTH, HEADS, SIZE).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        shares = (query @ key.transpose(-1, -2)).softmax(-1)
        hidden = hidden + self.out((shares @ value).transpose(1, 2).flatten(2))
        found: torch.Tensor = hidden * torch.sigmoid(hidden)
        return found


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """A graph, an input, and what torch makes of it."""
    module, pixels = Attending().eval(), torch.randn(1, 6, 6, 3, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("simplify") / "attending.tflite"
    export_tflite(module, {"pixels": pixels}, path)
    with torch.no_grad():
        return path, pixels, module(pixels)


def test_a_graph_without_needless_ops_answers_as_torch(
    lowered: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    path, pixels, expected = lowered
    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    (found,) = runner(pixels=pixels.numpy()).values()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_no_tensor_is_left_that_nothing_reads_or_writes(
    lowered: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    path, pixels, _ = lowered
    assert unused_in(path) == ([], [])
    interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.get_signature_runner("serving_default")(pixels=pixels.numpy())
    for tensor in interpreter.get_tensor_details():
        interpreter.get_tensor(tensor["index"])  # as quantizers do that calibrate


def test_heads_are_all_that_is_moved(lowered: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    counts = Counter(op_counts_tflite(lowered[0]))
    assert counts["TRANSPOSE"] == 4  # queries, keys and values to their heads, and back
    assert counts["RESHAPE"] == 5  # the same, and patches


def test_a_layer_norm_that_neither_scales_nor_shifts_is_seven_ops(
    lowered: tuple[Path, torch.Tensor, torch.Tensor],
) -> None:
    counts = Counter(op_counts_tflite(lowered[0]))
    assert counts["SQUARED_DIFFERENCE"] == 0
    found = [counts[kind] for kind in ("MEAN", "SUB", "RSQRT")]
    assert found == [2, 1, 1]
    assert counts["MUL"] == 3  # the square, what is divided, and the gate
    assert counts["ADD"] == 2  # epsilon and the residual


def test_keys_are_read_transposed(lowered: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    model: Any = read_tflite(lowered[0])
    turned = [
        op.builtinOptions.adjY for op in model.subgraphs[0].operators if hasattr(op.builtinOptions, "adjY")
    ]
    assert turned == [True, False]
