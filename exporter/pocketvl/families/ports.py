"""Ports, components and heads that several families have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketvl.families.base import AUDIO, IMAGE, TEXT, Component, Contract, LayerStack, MediaProcessor
from pocketvl.families.folders.hf import update_section_
from pocketvl.network.heads import ContrastiveHead, EmbeddingHead, HeadKind, Scalar, StoredScalar
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.manifest import Activation, AudioProcessor, ImageProcessor, TextProcessor

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig

    from pocketvl.families.component_shape import ComponentShape

IMAGE_ENCODER, AUDIO_ENCODER, TEXT_ENCODER = "image_encoder", "audio_encoder", "text_encoder"
_EMBEDDING, HIDDEN = "embedding", "hidden"
# What a whole model's weights hold beside one tower's.
_OF_WHOLE = ("vision_model", "visual_projection", "text_model", "text_projection")
_SCALARS = ("logit_scale", "logit_bias")
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


def hidden_port(positions: int, width: int, source: str | None = None) -> Port:
    """Hidden states of images that another component reads."""
    return Port(HIDDEN, DType.FLOAT32, (1, positions, width), PortKind.HIDDEN, source)


def embedding_ports(
    media: MediaProcessor, tokenizer: TextProcessor, dim: int
) -> Mapping[str, ComponentPorts]:
    """Ports of an image encoder, or an audio encoder, and a text encoder.

    Args:
        media: how a picture becomes pixels, or a sound a spectrogram.
        tokenizer: how a text becomes ids.
        dim: the length of an embedding.
    """
    if isinstance(media, AudioProcessor):
        first = {AUDIO_ENCODER: encoder_ports(features_port(media), dim)}
    else:
        first = {IMAGE_ENCODER: encoder_ports(pixel_port(media), dim)}
    return {**first, TEXT_ENCODER: encoder_ports(ids_port(tokenizer), dim)}


def encoder_ports(port: Port, dim: int) -> ComponentPorts:
    """Ports of an encoder by what it reads, with embeddings of `dim` numbers."""
    return ComponentPorts((port,), (Port(_EMBEDDING, DType.FLOAT32, (1, dim), PortKind.EMBEDDING),))


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
    first, second, *_ = contract.components
    return (
        encoder(contract, first, media, media_stack),
        encoder(contract, second, text, text_stack),
    )


def encoder(contract: Contract, name: str, module: nn.Module, stack: LayerStack | None) -> Component:
    """A component of a contract, with its layers, if it has a stack of them."""
    ports = contract.components[name]
    return Component(name, module, ports.inputs, ports.outputs, () if stack is None else (stack,))


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


def embedding_head(component: str) -> EmbeddingHead:
    """The head of an encoder by itself.

    Args:
        component: `IMAGE_ENCODER` or `TEXT_ENCODER`.
    """
    kind = HeadKind.IMAGE_EMBEDDING if component == IMAGE_ENCODER else HeadKind.TEXT_EMBEDDING
    return EmbeddingHead(f"{component}.{_EMBEDDING}", kind)


def is_projected(config: PreTrainedConfig, plain: str) -> bool:
    """Whether a tower's embeddings are projected: unless `architectures` names the class that does not."""
    return plain not in (config.architectures or ())


def keep_tower_(weights: dict[str, torch.Tensor], tower: str, projection: str | None) -> None:
    """Keep one tower's tensors, named as in a whole model, in place.

    Folders name them with the tower's name before them, or, since transformers 5, without; and a
    configuration of a tower may stand beside the weights of the whole model, of which transformers reads the
    tower's alone.

    Args:
        weights: of the folder.
        tower: "vision_model" or "text_model".
        projection: of its embedding, where it has one.
    """
    own = tuple(f"{name}." for name in (tower, projection) if name)
    foreign = tuple(f"{name}." for name in _OF_WHOLE if name not in (tower, projection))
    for name in [each for each in weights if each.startswith(foreign) or each in _SCALARS]:
        del weights[name]
    if not any(name.startswith(f"{tower}.") for name in weights):
        for name in [each for each in weights if not each.startswith(own)]:
            weights[f"{tower}.{name}"] = weights.pop(name)


def reshape_sections_(config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
    """Write shapes of an image and a text encoder into a config.json with a section for each, in place."""
    sections = {IMAGE_ENCODER: "vision_config", TEXT_ENCODER: "text_config"}
    for name, shape in shapes.items():
        update_section_(config, sections[name], shape.section())
