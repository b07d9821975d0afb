"""Ports and heads that several families have."""

from __future__ import annotations

from collections.abc import Mapping

from pocketvl.families.base import IMAGE, TEXT
from pocketvl.network.heads import ContrastiveHead, StoredScalar
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.manifest import Activation, ImageProcessor, TextProcessor

IMAGE_ENCODER, TEXT_ENCODER = "image_encoder", "text_encoder"
_EMBEDDING = "embedding"


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


def contrastive_head(
    bias: StoredScalar | None = None, activation: Activation = Activation.SOFTMAX
) -> ContrastiveHead:
    """A head of cosines, with the logarithm of their scale among the weights.

    Args:
        bias: what is added to the scaled cosines.
        activation: from logits to probabilities.
    """
    return ContrastiveHead(
        first=f"{IMAGE_ENCODER}.{_EMBEDDING}",
        second=f"{TEXT_ENCODER}.{_EMBEDDING}",
        scale=StoredScalar("logit_scale", is_log=True),
        bias=bias,
        activation=activation,
    )
