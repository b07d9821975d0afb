"""LiteRT's converter folds pixel normalisation into the convolution after it: integers must know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.families.layers.plain import NormalizePixels
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import CHANNELS_8
from pocketvl.quantize.arithmetic import quantize_weights, weight_scale
from pocketvl.quantize.fold import fold_
from pocketvl_runtime.manifest import ImageProcessor, Normalization, ResizeMode
from tests.lower.engines import run
from tests.lower.readers import INT8_WIDENED

HALF = (0.5, 0.5, 0.5)
PREPROCESS = ImageProcessor.bicubic(
    ResizeMode.SHORTEST_EDGE, (8, 8), (8, 8), Normalization(HALF, HALF, 1 / 255)
)


class Patches(nn.Module):
    """uint8 [B, 8, 8, 3] -> float32 [B, 5, 2, 2]."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.normalize: nn.Module = NormalizePixels(PREPROCESS)
        self.patches = nn.Conv2d(3, 5, 4, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.patches(self.normalize(pixels))
        return found


def integers(module: Patches) -> QuantizedComponent:
    state = module.patches.state_dict()
    weights, bias = state["weight"].numpy(), state["bias"].numpy()
    scale = weight_scale(weights, CHANNELS_8)
    layer = QuantizedLayer(INT8_WIDENED, quantize_weights(weights, scale, CHANNELS_8), scale, bias)
    return QuantizedComponent({"patches": layer})


@pytest.mark.parametrize("folded", [True, False])
def test_weights_that_the_converter_changed_are_not_overwritten(folded: bool, tmp_path: Path) -> None:
    module = Patches().eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8))
    with torch.no_grad():
        expected = module(pixels).numpy()
    if folded:
        fold_(module, pixels)
    export_tflite(module, {"pixels": pixels}, tmp_path / "float.tflite")
    if not folded:
        with pytest.raises(LoweringError, match="patches: the converter changed its weights by .* fold"):
            write_quantized_tflite(tmp_path / "float.tflite", integers(module), tmp_path / "int8.tflite")
        return
    write_quantized_tflite(tmp_path / "float.tflite", integers(module), tmp_path / "int8.tflite")
    found = run(tmp_path / "int8.tflite", [{"pixels": pixels.numpy()}]).reshape(expected.shape)
    assert np.abs(found - expected).max() < 0.2  # outputs are of -8 to 8
