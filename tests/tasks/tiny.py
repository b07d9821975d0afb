"""A model of two tiny components whose outputs are worked out in numpy, beside a bundle of the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pocketvl.families.base import Component, Contract
from pocketvl.families.ports import contrastive_head, embedding_ports
from pocketvl.network.ports import ComponentPorts
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.manifest import Padding, PortKind, TextProcessor
from tests.runtime import bundles, graphs

IMAGE, TEXT = "image_encoder.embedding", "text_encoder.embedding"


class LinearPixels(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        value = pixels.flatten(1).float() @ torch.from_numpy(graphs.IMAGE_WEIGHTS)
        return nn.functional.normalize(value, dim=-1)


class SummedTokens(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        rows = torch.from_numpy(graphs.TOKEN_TABLE)[ids.long()]
        weights = torch.ones_like(ids) if mask is None else mask
        return nn.functional.normalize((rows * weights[..., None]).sum(1), dim=-1)


def contract(needs_mask: bool = False) -> Contract:
    """Of the tiny bundle; one that needs a mask pads with a word that counts."""
    texts = TextProcessor(graphs.LENGTH, Padding(4 if needs_mask else 0))
    components = dict(embedding_ports(bundles.PREPROCESS, texts, graphs.DIM))
    if needs_mask:
        (ids,), outputs = components["text_encoder"].inputs, components["text_encoder"].outputs
        mask = replace(ids, name="mask", kind=PortKind.ATTENTION_MASK)
        components["text_encoder"] = ComponentPorts((ids, mask), outputs)
    return Contract(
        family="clip",
        name="tiny",
        folder=Path("tiny"),
        processors={"image": bundles.PREPROCESS, "text": texts},
        tokenizer_json=bundles.tokenizer_json(),
        components=components,
        head=contrastive_head(),
    )


def task() -> ContrastiveTask:
    return ContrastiveTask(IMAGE, TEXT, 10.0)


def runner(needs_mask: bool = False) -> TorchRunner:
    """The components in torch."""
    known = contract(needs_mask)
    modules = {"image_encoder": LinearPixels(), "text_encoder": SummedTokens()}
    components = {
        name: Component(name, modules[name], ports.inputs, ports.outputs)
        for name, ports in known.components.items()
    }
    return TorchRunner(components, Encoder.of_contract(known))
