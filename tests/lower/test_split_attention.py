"""A ViLT whose heads lost cross-modal blocks is lowered to both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.families import open_checkpoint
from pocketvl.families.layers.split_attention import Block, split_attentions_
from pocketvl.lower.backends import backend_of
from pocketvl_runtime.manifest import Engine
from tests.families.test_conformance import RUN
from tests.families.vilt_folder import HEADS, LAYER, make_vilt_folder, vilt_inputs


@pytest.mark.parametrize("engine", Engine)
def test_split_attention_answers_as_in_torch(engine: Engine, tmp_path: Path) -> None:
    component = open_checkpoint(make_vilt_folder(tmp_path / "vilt")).component("fusion")
    (stack,) = component.stacks
    assert stack.segments is not None
    removed = [Block(f"{LAYER}.0.attention.attention", "text", "image", 1)]
    removed += [Block(f"{LAYER}.1.attention.attention", "image", "text", head) for head in range(HEADS)]
    split_attentions_(component.module, stack.segments, removed)
    pixels, ids = vilt_inputs(4)
    with torch.no_grad():
        expected = component.module(pixels, ids).numpy()
    backend = backend_of(engine)
    path = tmp_path / f"graph{backend.suffix}"
    backend.export(component.module, {"pixels": pixels[:1], "ids": ids[:1]}, path, ("logits",))
    backend.check(path)
    assert not {"GATHER_ND", "GatherND"} & set(backend.op_counts(path))  # slow, and outside of XNNPACK
    feeds = ({"pixels": pixels[i : i + 1].numpy(), "ids": ids[i : i + 1].numpy()} for i in range(len(ids)))
    np.testing.assert_allclose(RUN[engine](path, feeds, "logits"), expected, atol=1e-5)
