"""Towers by themselves out of the tiny CLIP and SigLIP, as `save_pretrained` would write real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers

from pocketvl.families.folders.files import IMAGE_FILES
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def make_tiny_tower(folder: Path, architecture: str) -> Path:
    """Writes a whole folder of one of transformers' classes, with the weights of the tiny whole model.

    Args:
        folder: where to write; made if it does not exist.
        architecture: "CLIPVisionModelWithProjection", "SiglipTextModel" and their like.

    Returns:
        `folder`.
    """
    make: Callable[[Path], Path] = make_tiny_siglip if architecture.startswith("Siglip") else make_tiny_clip
    files = IMAGE_FILES if "Vision" in architecture else TOKENIZER_FILES
    with TemporaryDirectory() as whole:
        make(Path(whole))
        kind: Any = getattr(transformers, architecture)
        kind.from_pretrained(whole).save_pretrained(folder)
        for name in files:
            if (Path(whole) / name).exists():
                shutil.copyfile(Path(whole) / name, folder / name)
    return folder
