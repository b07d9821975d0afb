"""Which files of a checkpoint folder say what."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.json"
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
    names = (CONFIG_FILE, COMPRESSION_FILE, *PROCESSOR_FILES)
    return {name: folder / name for name in names if (folder / name).is_file()}


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """`description_files` and the weights."""
    patterns = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json")
    weights = (path for pattern in patterns for path in folder.glob(pattern))
    return {**description_files(folder), **{path.name: path for path in sorted(weights)}}
