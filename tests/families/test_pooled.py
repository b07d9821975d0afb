"""A last layer that is computed for the pooled position alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from pocketvl.families.layers.bert import PooledBertLayer, pool_last_bert_layer_
from pocketvl.families.layers.pooled import PooledLayer, PoolsOnePosition, pool_last_layer_
from pocketvl.quantize.fold import fold_
from pocketvl_runtime.manifest import PortKind
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_blip import make_tiny_blip
from tests.families.tiny_chinese import make_tiny_chinese
from tests.families.tiny_clap import make_tiny_clap
from tests.families.tiny_dual import make_tiny_dual
from tests.families.tiny_siglip import make_tiny_siglip
from tests.lower.lowered import samples

MAKERS: dict[str, Callable[[Path], Path]] = {
    "clip": make_tiny_clip,
    "siglip": make_tiny_siglip,
    "blip": make_tiny_blip,
    "chinese-clip": make_tiny_chinese,
    "clap": make_tiny_clap,
    "dual": make_tiny_dual,
}
PRE_NORM = [("clip", "image_encoder"), ("clip", "text_encoder"), ("siglip", "text_encoder")]
BERTS = [(family, "text_encoder") for family in ("blip", "chinese-clip", "clap", "dual")]
CASES = [*PRE_NORM, *BERTS, ("blip", "fusion")]
OF_ALL_POSITIONS = {
    PooledLayer: {"self_attn.k_proj", "self_attn.v_proj"},
    PooledBertLayer: {"attention.self.key", "attention.self.value"},
}
OF_AN_IMAGE = {"crossattention.self.key", "crossattention.self.value"}


def opened(family: str, component: str, folder: Path) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A tiny encoder and a batch of inputs; of texts, each ends at another position."""
    found = open_checkpoint(MAKERS[family](folder / family)).component(component)
    random, data = np.random.default_rng(3), []
    for port in found.inputs:
        shape = (6, *(int(side) for side in port.shape[1:]))
        if family == "clip":
            made = np.concatenate([feed[port.name] for feed in samples(port.name, 6, 3)])
        elif port.kind is PortKind.TOKEN_IDS:
            made = random.integers(0, 200, shape).astype(np.int32)
        else:
            made = random.normal(size=shape).astype(np.float32)
        data.append(torch.from_numpy(made))
    return found.module.eval(), tuple(data)


@pytest.mark.parametrize(("family", "component"), CASES)
def test_one_position_gives_the_same_output(family: str, component: str, tmp_path: Path) -> None:
    module, data = opened(family, component, tmp_path)
    assert isinstance(module, PoolsOnePosition)
    names = sorted(name for name, _ in module.named_parameters())
    with torch.no_grad():
        expected = module(*data)
        module.pool_early_()
        module.pool_early_()  # which changes nothing more
        found = module(*data)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert sorted(name for name, _ in module.named_parameters()) == names


@pytest.mark.parametrize(("family", "component"), CASES)
def test_only_keys_and_values_are_of_all_positions(family: str, component: str, tmp_path: Path) -> None:
    module, data = opened(family, component, tmp_path)
    assert isinstance(module, PoolsOnePosition)
    module.pool_early_()
    (last,) = (child for child in module.modules() if isinstance(child, (PooledLayer, PooledBertLayer)))
    positions: dict[str, int] = {}
    for name, child in last.named_modules():
        if isinstance(child, nn.Linear):
            child.register_forward_hook(
                lambda _, inputs, output, name=name: positions.update({name: output.shape[1]})
            )
    with torch.no_grad():
        module(*data)
    whole = {name for name, count in positions.items() if count > 1}
    assert whole - OF_AN_IMAGE == OF_ALL_POSITIONS[type(last)]
    assert len(positions.keys() - OF_AN_IMAGE) == (8 if component == "fusion" else 6)


@pytest.mark.parametrize(("family", "component"), [*BERTS, ("blip", "fusion")])
def test_the_last_norm_of_a_bert_goes_into_what_reads_it(family: str, component: str, tmp_path: Path) -> None:
    module, data = opened(family, component, tmp_path)
    with torch.no_grad():
        expected = module(*data)
        (folded,) = fold_(module, data)
        found = module(*data)
    assert folded.endswith("encoder.layer.1.output.LayerNorm")
    scales = [getattr(child, "scaling", 1.0) for child in module.modules()]
    assert all(scale == 1 for scale in scales)  # it is in the queries' weights
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_encoder_without_layers_stays() -> None:
    layers = nn.ModuleList()
    pool_last_layer_(layers, 0)
    pool_last_bert_layer_(layers)
    assert len(layers) == 0
