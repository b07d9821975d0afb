"""From what a user names as a checkpoint to its folder: the one place where hub ids are resolved."""

from __future__ import annotations

from pathlib import Path

from pocketvl.families.folders.hub import fetch, parse_hub_id


def checkpoint_folder(source: str | Path, cache: Path, offline: bool = False) -> Path:
    """The folder of a checkpoint.

    Args:
        source: a folder, or a hub id, "hf:org/name" or "hf:org/name@revision".
        cache: where results of stages are kept.
        offline: take hub ids from huggingface_hub's cache alone, as with HF_HUB_OFFLINE=1.

    Raises:
        SourceError: it is a hub id of no checkpoint, or of one that neither network nor cache has.
    """
    wanted = parse_hub_id(source)
    return Path(source) if wanted is None else fetch(wanted, offline)
