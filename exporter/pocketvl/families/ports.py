"""Ports, components and heads that several families have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketvl.families.base import IMAGE, TEXT, Component, Contract, LayerStack
from pocketvl.families.folders.hf import update_section_
from pocketvl.network.heads import ContrastiveHead, Scalar, StoredScalar
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.manifest import Activation, ImageProcessor, TextProcessor

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.component_shape import ComponentShape

IMAGE_ENCODER, TEXT_ENCODER = "image_encoder", "text_encoder"
_EMBEDDING = "embedding"
_LOGIT_SCALE = StoredScalar("logit_scale", is_log=True)


def pixel_port(preprocess: ImageProcessor) -> Port:
    """Pixels as the "image" processor gives them."""
    shape = (1, preprocess.height, preprocess.width, 3)
    return Port("pixels", DType.UINT8, shape, PortKind.PIXELS, IMAGE)


def ids_port(tokenizer: TextProcessor) -> Port:
    """Token ids as the "text" processor gives them."""
    return Port("ids", DType.INT32, (1, tokenizer.max_length), PortKind.TOKEN_IDS, TEXT)


def embedding_ports(
    preprocess: ImageProcessor, tokenizer: TextProcessor, dim: int
) -> Mapping[str, ComponentPorts]:
    """Ports of an image encoder and a text encoder.

    Args:
        preprocess: how a picture becomes pixels.
        tokenizer: how a text becomes ids.
        dim: the length of an embedding.
    """
    embedding = (Port(_EMBEDDING, DType.FLOAT32, (1, dim), PortKind.EMBEDDING),)
    return {
        IMAGE_ENCODER: ComponentPorts((pixel_port(preprocess),), embedding),
        TEXT_ENCODER: ComponentPorts((ids_port(tokenizer),), embedding),
    }


def two_encoders(
    contract: Contract,
    image: nn.Module,
    text: nn.Module,
    image_stack: LayerStack | None,
    text_stack: LayerStack | None,
) -> tuple[Component, ...]:
    """The components of a model of `embedding_ports`.

    Args:
        contract: of the model.
        image: the image encoder.
        text: the text encoder.
        image_stack: its layers; None where it is no stack of transformer layers.
        text_stack: likewise.
    """
    encoders = {IMAGE_ENCODER: (image, image_stack), TEXT_ENCODER: (text, text_stack)}
    return tuple(
        Component(
            name,
            module,
            contract.components[name].inputs,
            contract.components[name].outputs,
            () if stack is None else (stack,),
        )
        for name, (module, stack) in encoders.items()
    )


def contrastive_head(
    bias: Scalar | None = None,
    activation: Activation = Activation.SOFTMAX,
    scale: Scalar = _LOGIT_SCALE,
) -> ContrastiveHead:
    """A head of cosines.

    Args:
        bias: what is added to the scaled cosines.
        activation: from logits to probabilities.
        scale: what cosines are multiplied by; by default its logarithm is among the weights.
    """
    return ContrastiveHead(
        first=f"{IMAGE_ENCODER}.{_EMBEDDING}",
        second=f"{TEXT_ENCODER}.{_EMBEDDING}",
        scale=scale,
        bias=bias,
        activation=activation,
    )


def reshape_sections_(config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
    """Write shapes of an image and a text encoder into a config.json with a section for each, in place."""
    sections = {IMAGE_ENCODER: "vision_config", TEXT_ENCODER: "text_config"}
    for name, shape in shapes.items():
        update_section_(config, sections[name], shape.section())
