"""ViLT: text and picture in one stream of tokens, and answers to questions.

Source: Kim, Son and Kim, 2021, "ViLT: Vision-and-Language Transformer Without Convolution or Region
Supervision", arXiv 2102.03334; weights and configuration as transformers' `ViltForQuestionAnswering` stores
them. Pictures are of one fixed size here, where ViLT's own processor keeps their aspect ratio.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pocketvl.errors import SourceError
from pocketvl.families.checkpoint import read_json
from pocketvl.families.compression import read_compression
from pocketvl.families.folder import COMPRESSION_FILE
from pocketvl.families.opening import build_from, check_sizes, open_model, parse_config
from pocketvl_runtime.errors import quoted

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
        raise SourceError(
            f"{folder / COMPRESSION_FILE}: segments are {quoted(said)}, and of this model {wanted}"
        )
    return open_model(lambda: _build(config, folder), config, compression, folder)


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
    config = parse_config(ViltConfig, stored, path, "ViLT")
    check_sizes({name: getattr(config, name) for name in ("image_size", "patch_size")}, path)
    if config.num_channels != 3:
        raise SourceError(f"{path}: num_channels is {quoted(config.num_channels)}; pictures have 3")
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

    return build_from(ViltForQuestionAnswering, config, folder, "ViLT")
