"""The tiny CLIP model, lowered once a test run; `python -m tests.lower.lowered FOLDER` does it anew."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families import open_checkpoint
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.fp16 import cast_fp16_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.fp16 import cast_fp16_tflite
from pocketvl.network.integers import QuantizedComponent
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.structure import token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fold import fold_
from pocketvl_runtime.manifest import Precision
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip
from tests.lower.readers import FORMATS, MIXED, WRITE, in_forms

COMPONENTS = ("pixels", "ids")
SUFFIXES = tuple(
    f"{each}.{kind}" for each in ("fp32", "fp16", "int8", "mixed") for kind in ("onnx", "tflite")
)
FLOATS = NDArray[np.float32]
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True, eq=False)
class Lowered:
    """The model, folded, and the folder with `<input name>.<suffix>` for COMPONENTS and SUFFIXES.

    The integers of a component lie in the folder `<input name>`.
    """

    modules: Mapping[str, torch.nn.Module]
    folder: Path

    def path(self, component: str, suffix: str) -> Path:
        return self.folder / f"{component}.{suffix}"

    def module(self, component: str) -> torch.nn.Module:
        return self.modules[component]

    def integers(self, component: str) -> QuantizedComponent:
        return QuantizedComponent.load(self.folder / component)

    def torch_embedding(self, component: str, value: NDArray[np.generic]) -> FLOATS:
        module = self.module(component)
        with torch.no_grad():
            embedding: FLOATS = module(torch.from_numpy(value)).numpy()
        return embedding


def samples(component: str, count: int, seed: int) -> list[dict[str, NDArray[np.generic]]]:
    """Feeds of batch 1: smooth random pictures, or texts of random ids that end with eos."""
    random = np.random.default_rng(seed)
    if component == "ids":
        ids = random.integers(0, 380, (count, 1, TEXT_LENGTH), dtype=np.int32)
        ids[np.arange(TEXT_LENGTH) >= random.integers(3, TEXT_LENGTH, (count, 1, 1))] = 381
        ids[:, :, 0] = 380
        return [{"ids": row} for row in ids]
    coarse = random.integers(0, 256, (count, 1, 4, 4, 3))
    smooth = coarse.repeat(IMAGE_SIZE // 4, axis=2).repeat(IMAGE_SIZE // 4, axis=3)
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    return [{"pixels": picture} for picture in noisy.clip(0, 255).astype(np.uint8)]


def lower_all(folder: Path) -> Lowered:
    """Makes the tiny model and every graph of it in `folder`."""
    components = open_checkpoint(make_tiny_clip(folder / "tiny")).components.values()
    modules = {each.inputs[0].name: each.module.requires_grad_(False) for each in components}
    lowered = Lowered(modules, folder)
    for component in COMPONENTS:
        module, example = lowered.module(component), torch.from_numpy(samples(component, 1, 0)[0][component])
        fold_(module, example)
        export_onnx(module, {component: example}, lowered.path(component, "fp32.onnx"))
        export_tflite(module, {component: example}, lowered.path(component, "fp32.tflite"))
        cast_fp16_onnx(lowered.path(component, "fp32.onnx"), lowered.path(component, "fp16.onnx"))
        cast_fp16_tflite(lowered.path(component, "fp32.tflite"), lowered.path(component, "fp16.tflite"))
        seen = calibrate(module, [feed[component] for feed in samples(component, 64, 1)])
        integers = quantize_component(
            module, component_spec(module, Precision.INT8, token_tables(module, example)), seen
        )
        (folder / component).mkdir()
        integers.save(folder / component)
        mixed = in_forms(module, integers, MIXED)
        for kind in FORMATS:
            for written, name in ((integers, "int8"), (mixed, "mixed")):
                WRITE[kind](
                    lowered.path(component, f"fp32.{kind}"),
                    written,
                    lowered.path(component, f"{name}.{kind}"),
                )
    return lowered


@cache
def lowered() -> Lowered:
    """The graphs of this process, made at the first call."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="lowered-"))
    return lower_all(Path(_KEPT[0].name))


if __name__ == "__main__":
    lower_all(Path(sys.argv[1]))
