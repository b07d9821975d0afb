"""FastViT as it is deployed computes what timm's does with its branches and batch norms."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("timm")

from pocketvl.errors import SourceError
from pocketvl.families import check_checkpoint, open_checkpoint, read_contract
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.fastvit import deploy_, deployed_weights
from tests.families.tiny_fastvit import draw_fastvit_, make_tiny_fastvit, make_tiny_mobileclip

FORMS = pytest.mark.parametrize("large", [False, True], ids=["batch-norm", "layer-norm"])
_MOST_OFF = 1e-5


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@FORMS
@torch.no_grad()
def test_deployed_computes_what_the_branches_do(large: bool) -> None:
    trunk = make_tiny_fastvit(large=large)
    wanted = deepcopy(trunk).double()(pictures().double()).float()

    deploy_(trunk)

    assert off(trunk(pictures()), wanted) < _MOST_OFF
    left = {
        type(child).__name__ for child in trunk.modules() if next(child.parameters(False), None) is not None
    }
    assert left == {"Conv2d", "Linear"} | ({"LayerNorm2d"} if large else set())
    assert all(
        child.bias is not None for child in trunk.modules() if isinstance(child, nn.Conv2d | nn.Linear)
    )
    assert len(attentions(trunk)) == 1


@torch.no_grad()
def test_mobileclip2_s0_equals_timm_s_own_reparametrised_form() -> None:
    import timm

    trunk = timm.create_model("fastvit_mci0", num_classes=32).eval()
    draw_fastvit_(trunk, 0)
    trunk.double()  # in float, sums alone differ by the bound on some processors
    seen = pictures().double()
    wanted, merged = trunk(seen), timm.models.reparameterize_model(trunk).double()(seen)
    assert float((wanted - wanted.mean(0)).abs().max() / wanted.abs().max()) > 0.01  # pictures are told apart

    deploy_(trunk)
    trunk.double()  # what is merged is stored in float

    assert off(trunk(seen), wanted) < _MOST_OFF
    assert off(trunk(seen), merged) < _MOST_OFF


@FORMS
def test_weights_of_a_file_are_deployed_by_their_names(large: bool) -> None:
    trunk = make_tiny_fastvit(large=large)
    stored = {name: value.clone() for name, value in trunk.state_dict().items()}
    build = partial(make_tiny_fastvit, large=large)

    found = deployed_weights(build, stored)
    shapes = deployed_weights(build, {name: value.to("meta") for name, value in stored.items()})

    deploy_(trunk)
    wanted = trunk.state_dict()
    assert found is not None
    assert shapes is not None
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert {name: value.shape for name, value in shapes.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    assert deployed_weights(build, found) is None  # they have no branches any more
    assert deployed_weights(build, {name: stored[name] for name in [*stored][1:]}) is None


def test_a_folder_is_saved_in_the_deployed_form_and_opens_again(tmp_path: Path) -> None:
    opened = open_checkpoint(make_tiny_mobileclip(tmp_path / "branches"))
    assert not any("conv_kxk" in name or name.endswith("gamma") for name in opened.model.state_dict())

    opened.save(tmp_path / "deployed")

    check_checkpoint(tmp_path / "deployed")
    again = open_checkpoint(tmp_path / "deployed")
    assert again.space() == opened.space()
    image = again.component("image_encoder")
    assert image.unquantized
    carriers = [image.module.get_submodule(name) for name in image.unquantized]
    assert all(isinstance(child, nn.Conv2d) and child.groups > 1 for child in carriers)


@pytest.mark.parametrize(("key", "value"), [("timm_pool", "token"), ("timm_proj", "linear")])
def test_other_ends_than_mobileclip_s_are_refused(tmp_path: Path, key: str, value: str) -> None:
    folder = make_tiny_mobileclip(tmp_path)
    path = folder / "open_clip_config.json"
    stored = json.loads(path.read_text())
    stored["model_cfg"]["vision_cfg"][key] = value
    path.write_text(json.dumps(stored))

    with pytest.raises(SourceError, match=rf"{key} is .*of a FastViT only"):
        read_contract(folder)
