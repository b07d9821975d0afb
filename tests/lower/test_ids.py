"""Ids stay integers in every text graph, of every family, in every precision and engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.families import open_checkpoint
from pocketvl.lower.backends import backend_of_file
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.graph import read_tflite
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual
from tests.lower.lowered import COMPONENTS, SUFFIXES, lowered

EXPORT = {"onnx": export_onnx, "tflite": export_tflite}
LEAST = -6e4  # what fp16 can still hold, with room


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_ids_never_become_floats(component: str, suffix: str) -> None:
    path = lowered().path(component, suffix)
    backend_of_file(path).check(path)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Other families' text graphs, and those of CLIPs that are pooled at the highest id."""
    root, made = tmp_path_factory.mktemp("others"), {}
    checkpoints = {
        "legacy": make_tiny_clip(root / "legacy", legacy_eos=True),
        "dual": make_tiny_dual(root / "d"),
    }
    for name, checkpoint in checkpoints.items():
        opened = open_checkpoint(checkpoint)
        example = torch.full((1, opened.tokenizer.max_length), opened.tokenizer.pad_id, dtype=torch.int32)
        for kind, export in EXPORT.items():
            made[f"{name}.{kind}"] = root / f"{name}.{kind}"
            export(opened.component("text_encoder").module, {"ids": example}, made[f"{name}.{kind}"])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORT)
@pytest.mark.parametrize("name", ["legacy", "dual"])
def test_ids_of_other_models_never_become_floats(name: str, kind: str, others: dict[str, Path]) -> None:
    path = others[f"{name}.{kind}"]
    backend_of_file(path).check(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["legacy", "dual", "clip"])
def test_additive_masks_are_finite_in_fp16(name: str, others: dict[str, Path]) -> None:
    paths = {
        kind: lowered().path("ids", f"fp32.{kind}") if name == "clip" else others[f"{name}.{kind}"]
        for kind in EXPORT
    }
    graph = onnx.load(paths["onnx"]).graph
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    model = read_tflite(paths["tflite"])
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == 0 and data is not None:
            constants.append(np.frombuffer(bytes(data), np.float32))
    floats = [each for each in constants if each.dtype == np.float32 and each.size]
    least = min(float(each.min()) for each in floats)
    assert LEAST <= least < -1e4, "the mask is among the constants, and is no smaller than fp16 can hold"
    assert all(np.isfinite(each.astype(np.float16)).all() for each in floats)


class ComparesAsFloats(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return (ids.to(torch.float32) == 49407.0).to(torch.float32)


class AddsThenCasts(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.exp((ids.reshape(2, 2) + 3).amax(-1).to(torch.float32))


class LooksUpAndCompares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        place = (ids == ids.amax(-1, keepdim=True)).to(torch.float32)
        rows: torch.Tensor = self.table(ids) * place[:, :, None]
        return rows.sum(1)


@pytest.mark.parametrize("kind", EXPORT)
@pytest.mark.parametrize(
    "module", [ComparesAsFloats(), AddsThenCasts()], ids=lambda each: type(each).__name__
)
def test_ids_that_become_floats_are_named(module: nn.Module, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"graph.{kind}"
    EXPORT[kind](module.eval(), {"ids": torch.ones(1, 4, dtype=torch.int32)}, path)
    with pytest.raises(LoweringError, match=r"ids become floats in (Cast|CAST)"):
        backend_of_file(path).check(path)


@pytest.mark.parametrize("kind", EXPORT)
def test_tables_and_comparisons_are_what_ids_are_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"graph.{kind}"
    EXPORT[kind](LooksUpAndCompares().eval(), {"ids": torch.ones(1, 4, dtype=torch.int32)}, path)
    backend_of_file(path).check(path)
