"""From what a user names as a checkpoint to its folder: hub ids, names of open_clip, adapters."""

from __future__ import annotations

from pathlib import Path

from pocketvl.errors import SourceError
from pocketvl.families.folders.adapter import base_of, is_adapter, read_lora
from pocketvl.families.folders.hub import HubId, fetch, folder_name, is_repository, parse_hub_id
from pocketvl.families.folders.open_clip_names import PretrainedName, find_pretrained, parse_pretrained_name
from pocketvl.pipelines.stages.components import check_source
from pocketvl.pipelines.stages.merging import MergeAdapter
from pocketvl.pipelines.stages.open_clip import ArrangePretrained
from pocketvl.stage import plan, run


def checkpoint_folder(source: str | Path, cache: Path, offline: bool = False) -> Path:
    """The folder of a checkpoint.

    Args:
        source: a folder, a hub id, "hf:org/name" or "hf:org/name@revision", or a name of open_clip,
            "open_clip:ViT-B-32/laion2b_s34b_b79k"; a LoRA adapter is merged into its base.
        cache: where results of stages are kept: what was merged is one, and what open_clip names.
        offline: take hub ids from huggingface_hub's cache alone, as with HF_HUB_OFFLINE=1.

    Raises:
        SourceError: it is a hub id of no checkpoint, or of one that neither network nor cache has, or an
            adapter that is broken or whose base is not found.
    """
    pretrained = parse_pretrained_name(source)
    if pretrained is not None:
        return _pretrained(pretrained, cache, offline)
    wanted = parse_hub_id(source)
    folder = Path(source) if wanted is None else fetch(wanted, offline)
    if not is_adapter(folder):
        return folder
    base = _base(folder, offline)
    read_lora(folder)
    check_source(base)
    stage = MergeAdapter(folder, base, folder_name(folder))
    return run(plan([stage]), cache)[stage].folder / stage.name_of


def _pretrained(wanted: PretrainedName, cache: Path, offline: bool) -> Path:
    """A folder of a model that open_clip knows by name."""
    found = find_pretrained(wanted, offline)
    stage = ArrangePretrained(found.weights, found.description, found.name)
    return run(plan([stage]), cache)[stage].folder / stage.name_of


def _base(adapter: Path, offline: bool) -> Path:
    """The base of an adapter: a folder, from here or from beside the adapter, or a repository of the hub."""
    named = base_of(adapter)
    for folder in (Path(named), adapter / named, adapter.parent / named):
        if folder.is_dir():
            if is_adapter(folder):
                raise SourceError(f"{adapter}: its base {folder} is an adapter, too; merge that one first")
            return folder
    wanted = parse_hub_id(named)
    if wanted is None and is_repository(named):
        wanted = HubId(named)
    if wanted is None:
        raise SourceError(
            f"{adapter}: its base {named} is not here; write the path or hub id of the base as "
            "base_model_name_or_path into adapter_config.json"
        )
    try:
        return fetch(wanted, offline)
    except SourceError as error:
        raise SourceError(f"{adapter} is an adapter, and its base {error}") from error
