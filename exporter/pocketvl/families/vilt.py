"""ViLT: text and picture in one stream of tokens, and answers to questions.

Source: Kim, Son and Kim, 2021, "ViLT: Vision-and-Language Transformer Without Convolution or Region
Supervision", arXiv 2102.03334; weights and configuration as transformers' `ViltForQuestionAnswering` stores
them. Pictures are of one fixed size here, where ViLT's own processor keeps their aspect ratio.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch

from pocketvl.errors import SourceError
from pocketvl.families.checkpoint import load_weights_, read_json, read_weights
from pocketvl.families.compression import COMPRESSION_FILE, read_compression, reshape_

if TYPE_CHECKING:
    from transformers import ViltConfig, ViltForQuestionAnswering


def load(folder: Path) -> NoReturn:
    """Says that a ViLT cannot be exported.

    Raises:
        SourceError: always.
    """
    raise SourceError(f"{folder} is a ViLT, which can be compressed and trained, but not exported yet")


def load_model(folder: Path, text_length: int) -> ViltForQuestionAnswering:
    """Opens transformers' own model, as it is compressed and trained: fp32, in eval mode.

    Args:
        folder: a Hugging Face model folder of model_type "vilt".
        text_length: tokens of a question, filling included, by which split attentions have to be split.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    config = check_config(read_json(folder / "config.json"), folder)
    compression = read_compression(folder)
    wanted = segment_lengths(config, text_length)
    said = dict(compression.segments)
    if compression.removed and list(said.items()) != list(wanted.items()):
        raise SourceError(f"{folder / COMPRESSION_FILE}: segments are {said}, and of this model {wanted}")
    weights = read_weights(folder)
    model = _build(config, folder)
    reshape_(model, compression, folder)
    load_weights_(model, weights, folder)
    model.train(False)
    return model


def build_model(stored: dict[str, Any], folder: Path) -> ViltForQuestionAnswering:
    """A model as a config.json describes it, with weights that mean nothing.

    Args:
        stored: its content.
        folder: for messages.

    Raises:
        SourceError: there is no such model.
    """
    return _build(check_config(stored, folder), folder)


def check_config(stored: dict[str, Any], folder: Path) -> ViltConfig:
    """Reads the content of a config.json.

    Args:
        stored: the content.
        folder: for messages.

    Raises:
        SourceError: it describes no ViLT for one picture of a fixed size.
    """
    from transformers import ViltConfig

    path = folder / "config.json"
    try:
        config = ViltConfig.from_dict(stored)
    except Exception as error:  # the validators of transformers raise whatever they like
        reason = " ".join(str(error).split())
        raise SourceError(f"{path} is not a valid ViLT configuration: {reason}") from error
    for name in ("image_size", "patch_size"):
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            raise SourceError(f"{path}: {name} is {value!r}; one positive number is needed")
    if config.num_channels != 3:
        raise SourceError(f"{path}: num_channels is {config.num_channels}; pictures have 3")
    if 0 < config.max_image_length < patch_count(config):
        raise SourceError(
            f"{path}: max_image_length is {config.max_image_length}, fewer than the {patch_count(config)} "
            "patches of a picture, all of which are read here"
        )
    return config


def patch_count(config: ViltConfig) -> int:
    """How many patches a picture is cut into."""
    side = cast(int, config.image_size) // cast(int, config.patch_size)
    return side * side


def segment_lengths(config: ViltConfig, text_length: int) -> dict[str, int]:
    """The parts of the sequence, in tokens: text, then one of the picture as a whole and its patches."""
    return {"text": text_length, "image": 1 + patch_count(config)}


def _build(config: ViltConfig, folder: Path) -> ViltForQuestionAnswering:
    from transformers import ViltForQuestionAnswering
    from transformers.initialization import no_init_weights

    try:
        with torch.random.fork_rng(devices=[]), no_init_weights():
            model = ViltForQuestionAnswering._from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.float32
            )
    except Exception as error:  # an impossible config fails wherever it first hurts
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{folder / 'config.json'}: no ViLT model can be built from it: {reason}"
        ) from error
    return cast("ViltForQuestionAnswering", model)
