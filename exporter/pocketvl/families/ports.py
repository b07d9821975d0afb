"""Ports, components and heads that several families have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketvl.families.base import AUDIO, IMAGE, TEXT, Component, Contract, LayerStack, MediaProcessor
from pocketvl.families.folders.hf import update_section_
from pocketvl.network.heads import ContrastiveHead, Scalar, StoredScalar
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.manifest import Activation, AudioProcessor, ImageProcessor, TextProcessor

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.component_shape import ComponentShape

IMAGE_ENCODER, AUDIO_ENCODER, TEXT_ENCODER = "image_encoder", "audio_encoder", "text_encoder"
_EMBEDDING = "embedding"
_LOGIT_SCALE = StoredScalar("logit_scale", is_log=True)


def pixel_port(preprocess: ImageProcessor) -> Port:
    """Pixels as the "image" processor gives them."""
    shape = (1, preprocess.height, preprocess.width, 3)
    return Port("pixels", DType.UINT8, shape, PortKind.PIXELS, IMAGE)


def features_port(processor: AudioProcessor) -> Port:
    """A spectrogram as the "audio" processor gives it."""
    return Port("features", DType.FLOAT32, processor.output.shape, PortKind.AUDIO_FEATURES, AUDIO)


def ids_port(tokenizer: TextProcessor) -> Port:
    """Token ids as the "text" processor gives them."""
    return Port("ids", DType.INT32, (1, tokenizer.max_length), PortKind.TOKEN_IDS, TEXT)


def embedding_ports(
    media: MediaProcessor, tokenizer: TextProcessor, dim: int
) -> Mapping[str, ComponentPorts]:
    """Ports of an image encoder, or an audio encoder, and a text encoder.

    Args:
        media: how a picture becomes pixels, or a sound a spectrogram.
        tokenizer: how a text becomes ids.
        dim: the length of an embedding.
    """
    embedding = (Port(_EMBEDDING, DType.FLOAT32, (1, dim), PortKind.EMBEDDING),)
    if isinstance(media, AudioProcessor):
        first = {AUDIO_ENCODER: ComponentPorts((features_port(media),), embedding)}
    else:
        first = {IMAGE_ENCODER: ComponentPorts((pixel_port(media),), embedding)}
    return {**first, TEXT_ENCODER: ComponentPorts((ids_port(tokenizer),), embedding)}


def two_encoders(
    contract: Contract,
    media: nn.Module,
    text: nn.Module,
    media_stack: LayerStack | None,
    text_stack: LayerStack | None,
) -> tuple[Component, ...]:
    """The components of a model of `embedding_ports`.

    Args:
        contract: of the model.
        media: the image encoder or audio encoder.
        text: the text encoder.
        media_stack: its layers; None where it is no stack of transformer layers.
        text_stack: likewise.
    """
    encoders = dict(zip(contract.components, ((media, media_stack), (text, text_stack)), strict=True))
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
    second_scale: Scalar | None = None,
    first: str = IMAGE_ENCODER,
) -> ContrastiveHead:
    """A head of cosines.

    Args:
        bias: what is added to the scaled cosines.
        activation: from logits to probabilities.
        scale: what cosines are multiplied by; by default its logarithm is among the weights.
        second_scale: in its place, where one text is compared with several pictures or sounds.
        first: the component that embeds pictures or sounds.
    """
    return ContrastiveHead(
        first=f"{first}.{_EMBEDDING}",
        second=f"{TEXT_ENCODER}.{_EMBEDDING}",
        scale=scale,
        bias=bias,
        activation=activation,
        second_scale=second_scale,
    )


def reshape_sections_(config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
    """Write shapes of an image and a text encoder into a config.json with a section for each, in place."""
    sections = {IMAGE_ENCODER: "vision_config", TEXT_ENCODER: "text_config"}
    for name, shape in shapes.items():
        update_section_(config, sections[name], shape.section())
