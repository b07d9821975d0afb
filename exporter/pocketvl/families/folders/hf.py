"""Reading the JSON files of a Hugging Face model folder; code that they name is never run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import COMPRESSION_FILE, CONFIG_FILE
from pocketvl_runtime.errors import shortened


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, with or without a byte order mark before it.

    Raises:
        SourceError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}; is it a Hugging Face model folder?") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON: {shortened(str(error), 200)}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def custom_code(config: Mapping[str, Any]) -> str | None:
    """The code of its own that a config.json asks for ("modeling_x.XModel"); None where it asks for none."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict) or not auto_map:
        return None
    named = auto_map.get("AutoModel", next(iter(auto_map.values())))
    return shortened(str(named), 100)


def custom_code_notes(folder: Path) -> tuple[str, ...]:
    """A note where a folder's config.json asks for code of its own."""
    path = folder / CONFIG_FILE
    named = custom_code(read_json(path)) if path.is_file() else None
    if named is None:
        return ()
    return (
        f"config.json: auto_map names code of its own ({named}), which is not run; transformers' is taken",
    )


def dropped_components(folder: Path) -> tuple[str, ...]:
    """The components that a folder's compression.json says are dropped; imports no torch."""
    path = folder / COMPRESSION_FILE
    stored = read_json(path).get("dropped", ()) if path.is_file() else ()
    return tuple(map(str, stored)) if isinstance(stored, list) else ()


def update_section_(config: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    """Write values into a section of a config.json's content, in place.

    Args:
        config: the content.
        section: its name, "text_config", after those around it, "model_cfg.text_cfg"; empty: the content
            itself.
        values: by key.
    """
    if not section:
        config.update(values)
        return
    *outer, section = section.split(".")
    for part in outer:
        config = config.setdefault(part, {})
    for part in (section, f"{section}_dict"):  # of old checkpoints; it would overrule the other
        if part == section or config.get(part):
            config.setdefault(part, {}).update(values)
