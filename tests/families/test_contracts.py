"""What every family gives: a contract without weights, components that keep to it, and weights read once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import FAMILIES, family_of, open_checkpoint, read_contract, uninitialised_component
from pocketvl.families.base import example_inputs
from pocketvl.families.folders.weights import read_scalar
from pocketvl.network.heads import ContrastiveHead, LabelHead, StoredScalar
from pocketvl.network.ports import PortKind
from tests.families.cases import CASES
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import make_vilt_folder
from tests.families.weight_reads import WeightReads

UNREAD = {case.tiny: case.unread for case in CASES}
EVERY_FAMILY = pytest.mark.parametrize(
    "make", [pytest.param(case.tiny, marks=case.marks, id=case.name) for case in CASES]
)
Make = Callable[[Path], Path]


def test_every_family_is_tried_here() -> None:
    assert {family.name for family in FAMILIES} == {case.family for case in CASES}


@EVERY_FAMILY
def test_a_contract_is_read_without_weights(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "tiny")
    wanted = open_checkpoint(folder).contract
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()
    found = read_contract(folder)
    assert found.components == wanted.components
    assert (found.head, found.processors, found.identity) == (wanted.head, wanted.processors, wanted.identity)
    family = family_of(folder)
    assert (found.family, found.name) == (family.name, "tiny")
    assert (tuple(found.components), found.head.kind) == (family.components, family.head)
    with pytest.raises(SourceError, match=rf"has no {weights.name}"):
        open_checkpoint(folder)


@EVERY_FAMILY
def test_components_take_and_give_what_their_ports_say(make: Make, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make(tmp_path / "tiny"))
    for name, component in checkpoint.components.items():
        ports = checkpoint.contract.components[name]
        assert (component.name, component.inputs, component.outputs) == (name, ports.inputs, ports.outputs)
        reranker = checkpoint.contract.reranker
        read = set() if reranker is None or name != reranker.component else {reranker.hidden}
        assert read <= {port.source for port in ports.inputs} <= {*checkpoint.contract.processors, *read}
        with torch.inference_mode():
            given = component.module(*example_inputs(component))
        rows = (given,) if isinstance(given, torch.Tensor) else given
        for port, values in zip(ports.outputs, rows, strict=True):
            assert (tuple(values.shape), values.dtype) == (port.shape, getattr(torch, port.dtype.value))


@EVERY_FAMILY
def test_parameters_of_components_are_called_as_in_the_model(make: Make, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make(tmp_path / "tiny"))
    model = dict(checkpoint.model.named_parameters())
    found = set()
    for component in checkpoint.components.values():
        for name, parameter in component.module.named_parameters():
            assert parameter is model[name]
            found.add(name)
        for stack in component.stacks:
            assert isinstance(component.module.get_submodule(stack.name), nn.ModuleList)
    assert all(re.fullmatch(UNREAD[make], name) for name in set(model) - found)


@EVERY_FAMILY
def test_opening_reads_the_weights_once_and_a_contract_none_of_them(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reads = make(tmp_path / "tiny"), WeightReads(monkeypatch)
    contract = read_contract(folder)
    for name in contract.components:
        uninitialised_component(contract, name)
    assert reads.of(folder) == 0
    open_checkpoint(folder)
    assert reads.of(folder) == 1


def test_two_towers_meet_in_a_contrastive_head_whose_scale_stands_among_the_weights(tmp_path: Path) -> None:
    contract = read_contract(make_tiny_clip(tmp_path / "clip"))
    head = contract.contrastive_head
    for name in (head.first, head.second):
        component, _, port = name.partition(".")
        (found,) = (each for each in contract.components[component].outputs if each.name == port)
        assert found.kind is PortKind.EMBEDDING
    assert read_scalar(contract.folder, head.scale) == pytest.approx(math.exp(2.5))
    assert open_checkpoint(contract.folder).logit_scale == pytest.approx(math.exp(2.5))
    with pytest.raises(SourceError, match="is no model that answers questions"):
        assert contract.label_head


def test_a_vilt_scores_its_labels(tmp_path: Path) -> None:
    contract = read_contract(make_vilt_folder(tmp_path / "vilt"))
    head = contract.label_head
    assert isinstance(head, LabelHead)
    (logits,) = contract.components[head.component].outputs
    assert (logits.kind, logits.shape) == (PortKind.CLASS_LOGITS, (1, len(head.labels)))
    with pytest.raises(SourceError, match="is no model that embeds"):
        assert contract.contrastive_head


def test_a_scale_is_read_from_the_shard_that_holds_it(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip", max_shard_size="40KB")
    assert not (folder / "model.safetensors").exists()
    head = read_contract(folder).head
    assert isinstance(head, ContrastiveHead)
    assert read_scalar(folder, head.scale) == pytest.approx(math.exp(2.5))


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (StoredScalar("nothing"), "nothing cannot be read"),
        (StoredScalar("visual_projection.weight"), "one number is needed"),
    ],
)
def test_what_is_no_number_of_the_weights_is_named(
    tmp_path: Path, stored: StoredScalar, complaint: str
) -> None:
    with pytest.raises(SourceError, match=complaint):
        read_scalar(make_tiny_clip(tmp_path / "clip"), stored)


def test_a_component_that_is_not_there_is_named(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    with pytest.raises(RecipeError, match="no component 'fusion', only image_encoder, text_encoder"):
        checkpoint.component("fusion")
