"""Configuration and tokenizer files of a checkpoint with fewer tokens, or with shorter texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl_runtime.manifest import TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_SECTION = "text_config"
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token", "truncation_side")
_CONFIG = "tokenizer_config.json"


def trim_config_(config: dict[str, Any], parsed: PreTrainedConfig, new_ids: Mapping[int, int]) -> int:
    """Write the number of tokens, and the ids of special ones, into the content of a config.json.

    Args:
        config: changed in place.
        parsed: what it describes; its text section is changed, too.
        new_ids: by the ids before.

    Returns:
        How many tokens there were.
    """
    described = getattr(parsed, _SECTION, parsed)
    changed = {
        key: new_ids[value]
        for key, value in vars(described).items()
        if key.endswith("_token_id") and value in new_ids
    }
    before = int(described.vocab_size)
    changed["vocab_size"] = len(new_ids)
    update_section_(config, "" if described is parsed else _SECTION, changed)
    return before


def write_length(out: Path, length: int) -> None:
    """Write into a folder's tokenizer_config.json after how many tokens texts are cut."""
    path = out / _CONFIG
    stored = read_json(path) if path.is_file() else {}
    text = json.dumps({**stored, "model_max_length": length}, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def write_tokenizer(out: Path, source: Path, content: bytes, processor: TextProcessor) -> None:
    """Write tokenizer.json, and what stands beside it, of a tokenizer that has fewer tokens than its source.

    Args:
        out: the folder.
        source: the folder whose tokenizer it was.
        content: of tokenizer.json.
        processor: how texts become ids now.
    """
    (out / "tokenizer.json").write_bytes(content)
    stored = read_json(source / _CONFIG) if (source / _CONFIG).is_file() else {}
    config = {
        **{key: stored[key] for key in _TOKENS if key in stored},
        "model_max_length": processor.max_length,
        "pad_token": Tokenizer.from_str(content.decode("utf-8")).id_to_token(processor.pad.id),
        "padding_side": processor.pad.side.value,
        "tokenizer_class": "PreTrainedTokenizerFast",  # tokenizer.json as it stands
    }
    (out / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
