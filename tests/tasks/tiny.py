"""A model of two tiny components whose outputs are worked out in numpy, beside a bundle of the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pocketvl.families.base import Component, Contract
from pocketvl.network.heads import ContrastiveHead, StoredScalar
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.manifest import TokenizerSpec
from tests.runtime import bundles, graphs

IMAGE, TEXT = "image_encoder.embedding", "text_encoder.embedding"
PIXELS, TOKEN_IDS, MASK = PortKind.PIXELS, PortKind.TOKEN_IDS, PortKind.ATTENTION_MASK


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
    ids = (1, graphs.LENGTH)
    pixels = Port("pixels", DType.UINT8, (1, bundles.PREPROCESS.height, bundles.PREPROCESS.width, 3), PIXELS)
    texts = (Port("ids", DType.INT32, ids, TOKEN_IDS), Port("mask", DType.INT32, ids, MASK))
    embedding = (Port("embedding", DType.FLOAT32, (1, graphs.DIM), PortKind.EMBEDDING),)
    return Contract(
        family="clip",
        name="tiny",
        folder=Path("tiny"),
        processors={
            "image": bundles.PREPROCESS,
            "text": TokenizerSpec(graphs.LENGTH, pad_id=4 if needs_mask else 0, needs_mask=needs_mask),
        },
        tokenizer_json=bundles.tokenizer_json(),
        components={
            "image_encoder": ComponentPorts((pixels,), embedding),
            "text_encoder": ComponentPorts(texts[: 1 + needs_mask], embedding),
        },
        head=ContrastiveHead(IMAGE, TEXT, StoredScalar("logit_scale", is_log=True)),
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
