"""Stands in for the families' contract until that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl_runtime.manifest import PreprocessSpec, Role, TokenizerSpec

if TYPE_CHECKING:
    from torch import nn


class PortKind(StrEnum):
    """What a port carries."""

    PIXELS = "pixels"
    TOKEN_IDS = "token_ids"
    ATTENTION_MASK = "attention_mask"
    EMBEDDING = "embedding"
    CLASS_LOGITS = "class_logits"


@dataclass(frozen=True)
class Port:
    """One input or output of a component."""

    name: str
    kind: PortKind


class Activation(StrEnum):
    """From logits to probabilities."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True)
class StoredScalar:
    """A scalar of the weights."""

    tensor: str
    is_log: bool


@dataclass(frozen=True)
class ContrastiveHead:
    """Two embeddings in one space."""

    first: str
    second: str
    scale: StoredScalar
    bias: StoredScalar | None = None
    activation: Activation = Activation.SOFTMAX


@dataclass(frozen=True)
class LabelHead:
    """Logits of labels."""

    component: str
    labels: tuple[str, ...]
    activation: Activation


Head = ContrastiveHead | LabelHead


@dataclass(frozen=True)
class ComponentPorts:
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Component:
    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Contract:
    folder: Path
    preprocess: PreprocessSpec
    tokenizer: TokenizerSpec
    tokenizer_json: bytes
    components: Mapping[str, ComponentPorts]
    head: Head
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    contract: Contract
    components: Mapping[str, Component]


def read_contract(folder: Path) -> Contract:
    return open_checkpoint(folder).contract


def read_scalar(folder: Path, scalar: StoredScalar) -> float:
    from pocketvl.families import open_source

    return open_source(folder).logit_scale


def open_checkpoint(folder: Path) -> Checkpoint:
    from pocketvl.families import answers_questions, open_source, open_trainable

    head: Head
    if answers_questions(folder):
        from pocketvl.families.vilt_trainable import TrainableVilt

        opened = open_trainable(folder)
        assert isinstance(opened, TrainableVilt)
        pixels, ids = Port("pixels", PortKind.PIXELS), Port("ids", PortKind.TOKEN_IDS)
        ports = {"fusion": ComponentPorts((pixels, ids), (Port("logits", PortKind.CLASS_LOGITS),))}
        head = LabelHead("fusion", opened.answers, Activation.SOFTMAX)
        contract = Contract(
            folder, opened.preprocess, opened.tokenizer, opened.tokenizer_json, ports, head, ()
        )
        module = {"fusion": opened.tower(Role.FUSION).train(False)}
    else:
        source = open_source(folder)
        embedding = (Port("embedding", PortKind.EMBEDDING),)
        texts = [Port("ids", PortKind.TOKEN_IDS)]
        if source.tokenizer.needs_mask:
            texts.append(Port("mask", PortKind.ATTENTION_MASK))
        ports = {
            "image_encoder": ComponentPorts((Port("pixels", PortKind.PIXELS),), embedding),
            "text_encoder": ComponentPorts(tuple(texts), embedding),
        }
        head = ContrastiveHead(
            "image_encoder.embedding", "text_encoder.embedding", StoredScalar("logit_scale", True)
        )
        contract = Contract(
            folder, source.preprocess, source.tokenizer, source.tokenizer_json, ports, head, source.notes
        )
        module = {"image_encoder": source.image_encoder, "text_encoder": source.text_encoder}
    return Checkpoint(contract, {n: Component(n, module[n], p.inputs, p.outputs) for n, p in ports.items()})
