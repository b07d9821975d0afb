"""Which files of a checkpoint folder say what."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG_FILE = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
COMPRESSION_FILE = "compression.json"
CARD_FILE = "MODEL_CARD.md"
"""Written by people; it goes on standing where a checkpoint is replaced."""
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
"""How pictures become pixels."""
PROCESSOR_FILES = (
    *IMAGE_FILES,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""How pictures become pixels, and texts ids."""


def description_files(folder: Path) -> dict[str, Path]:
    """All that shapes a checkpoint's modules beside its weights, by name; those files that are there.

    The activation, the heads, epsilons, sizes and ends of texts stand in config.json, shapes after
    compression in compression.json, the mean that is folded into the patch embedding and the length of
    texts in the files of processor and tokenizer.
    """
    names = (CONFIG_FILE, OPEN_CLIP_CONFIG, COMPRESSION_FILE, *PROCESSOR_FILES)
    return {name: folder / name for name in names if (folder / name).is_file()}


def is_open_clip(folder: Path) -> bool:
    """Whether a folder's model is open_clip's; where it is transformers' too, that counts."""
    return (folder / OPEN_CLIP_CONFIG).is_file() and not _names_model_type(folder / CONFIG_FILE)


def config_path(folder: Path) -> Path:
    """The file that describes a folder's model, whether it is there or not."""
    return folder / (OPEN_CLIP_CONFIG if is_open_clip(folder) else CONFIG_FILE)


def _names_model_type(path: Path) -> bool:
    """timm's repositories have a config.json that says nothing of transformers."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True  # whoever reads it says what is wrong with it
    return isinstance(stored, dict) and "model_type" in stored


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """`description_files` and the weights."""
    patterns = ["*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json"]
    if is_open_clip(folder):
        patterns += ["*.bin", "*.pt", "*.pth"]
    weights = (path for pattern in patterns for path in folder.glob(pattern))
    return {**description_files(folder), **{path.name: path for path in sorted(weights)}}
