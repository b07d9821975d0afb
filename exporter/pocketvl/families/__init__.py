"""Model families: what turns a checkpoint folder into a `Source`, one file a family."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import SourceError
from pocketvl_runtime.errors import quoted

if TYPE_CHECKING:
    from pocketvl.families.base import Source
    from pocketvl.families.trainable import Trainable

# model_type in config.json -> the module that opens such a folder, beside which one with "_trainable" in its
# name opens it to be changed. A plain table, so that importing this
# package imports no torch, and so that a family is added here and nowhere else.
_FAMILIES = {
    "clip": "pocketvl.families.clip",
    "vilt": "pocketvl.families.vilt",
    "vision-text-dual-encoder": "pocketvl.families.dual_encoder",
}
# Those whose models answer questions about pictures; all others embed pictures and texts.
_ANSWERING = ("vilt",)


def open_source(folder: Path) -> Source:
    """Opens a Hugging Face model folder of a family that pocketvl knows; never touches the network.

    Args:
        folder: holds config.json, safetensors weights, tokenizer.json and, mostly, preprocessor_config.json.

    Returns:
        The model in eval mode, fp32, on the CPU, with its preprocessing and tokenizer contract.

    Raises:
        SourceError: the folder or one of its files is missing, broken or does not fit the others.
    """
    source: Source = import_module(_FAMILIES[_model_type(folder)]).load(folder)
    return source


def open_trainable(folder: Path) -> Trainable:
    """Opens a folder of a family that pocketvl knows, to be compressed and trained.

    Raises:
        SourceError: as `open_source`.
    """
    trainable: Trainable = import_module(f"{_FAMILIES[_model_type(folder)]}_trainable").load_trainable(folder)
    return trainable


def answers_questions(folder: Path) -> bool:
    """Whether a folder's model answers questions about pictures, and does not embed pictures and texts.

    Raises:
        SourceError: it is of no family that pocketvl knows.
    """
    return _model_type(folder) in _ANSWERING


def _model_type(folder: Path) -> str:
    from pocketvl.families.checkpoint import read_json

    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise SourceError(f"{folder} {what}; give the path of a Hugging Face model folder")
    model_type = read_json(folder / "config.json").get("model_type")
    known = ", ".join(sorted(_FAMILIES))
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise SourceError(
            f"{folder / 'config.json'}: model_type {quoted(model_type)} is not known (known: {known})"
        )
    return model_type
