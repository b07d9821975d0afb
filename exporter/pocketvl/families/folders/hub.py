"""Checkpoints of the Hugging Face hub: from `hf:org/name[@revision]` to a folder of its local cache."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import (
    COMPRESSION_FILE,
    CONFIG_FILE,
    OPEN_CLIP_CONFIG,
    PROCESSOR_FILES,
    is_open_clip,
)
from pocketvl.families.folders.weights import (
    INDEX_SUFFIX,
    OPEN_CLIP_WEIGHTS,
    PICKLED,
    SAFETENSORS,
    read_index,
)
from pocketvl_runtime.errors import library_text, quoted

PREFIX = "hf:"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DESCRIBED = (CONFIG_FILE, OPEN_CLIP_CONFIG, COMPRESSION_FILE, ADAPTER_CONFIG, *PROCESSOR_FILES)
_KINDS = (SAFETENSORS, f"{SAFETENSORS}{INDEX_SUFFIX}", PICKLED, f"{PICKLED}{INDEX_SUFFIX}")
_TIMEOUT_S = 5.0  # for the hub's first answer
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REPOSITORY = re.compile(rf"{_PART}(/{_PART})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubId:
    """A checkpoint of the hub.

    Attributes:
        repository: "org/name"; a few old ones are a name alone.
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def parse_hub_id(source: str | Path) -> HubId | None:
    """The hub id that a source is; None where it is a path.

    Raises:
        SourceError: it begins like one, and is none.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return None
    repository, marked, revision = text.removeprefix(PREFIX).partition("@")
    if not is_repository(repository) or (marked and not _is_safe(_REVISION, revision)):
        raise SourceError(f"{quoted(text)} is no hub id; write hf:ORG/NAME or hf:ORG/NAME@REVISION")
    return HubId(repository, revision or None)


def is_repository(text: str) -> bool:
    """Whether a text can be the name of a repository, "org/name"."""
    return _is_safe(_REPOSITORY, text) and "--" not in text


def _is_safe(pattern: re.Pattern[str], text: str) -> bool:
    return bool(pattern.fullmatch(text)) and ".." not in text


def fetch(wanted: HubId, offline: bool = False) -> Path:
    """Download what pocketvl reads of a checkpoint, where huggingface_hub's cache has not got it already.

    Pickled weights are downloaded only where there are no safetensors. Where the hub does not answer, what
    the cache holds of the revision is taken.

    Args:
        wanted: which.
        offline: take it from the cache alone, as with HF_HUB_OFFLINE=1.

    Returns:
        A folder of huggingface_hub's cache (HF_HOME, HF_HUB_CACHE).

    Raises:
        SourceError: there is no such checkpoint, or neither network nor cache has it.
    """
    with network(offline) as is_offline:
        if is_offline:
            return _cached(wanted, "nothing is downloaded offline")
        files, obstacle = _listed(wanted)
        if files is None:
            found = _cached(wanted, obstacle)
            _LOG.warning("%s: revision %.12s of the local cache is taken; %s", wanted, found.name, obstacle)
            return found
        kinds: tuple[str, ...] = _KINDS
        if (
            OPEN_CLIP_CONFIG in files and ADAPTER_CONFIG not in files
        ):  # its config.json says whose model it is
            described = _download(wanted, wanted.revision, _DESCRIBED)
            kinds = (*OPEN_CLIP_WEIGHTS, SAFETENSORS, PICKLED) if is_open_clip(described) else _KINDS
        weights = _weights_among(files, kinds)
        folder = _download(wanted, wanted.revision, (*_DESCRIBED, *weights))
        index = next((folder / name for name in weights if name.endswith(INDEX_SUFFIX)), None)
        if index is not None:
            folder = _download(wanted, folder.name, set(read_index(index).values()))
        return folder


def _weights_among(files: Collection[str], kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The file of a repository that holds its weights, or the index of their shards."""
    if ADAPTER_CONFIG in files:
        kinds = (ADAPTER_WEIGHTS,)
    return tuple(name for name in kinds if name in files)[:1]


def _listed(wanted: HubId) -> tuple[Collection[str] | None, str]:
    """The files of a repository; None where the hub cannot be reached, and why.

    Raises:
        SourceError: the hub has no such model, or none for this user.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(wanted.repository, revision=wanted.revision, timeout=_TIMEOUT_S)
    except GatedRepoError as error:
        raise SourceError(
            f"{wanted} is gated: accept its terms on its page of the hub, then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{wanted}: the hub has no such model, or it is private and needs `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(
            f"{wanted}: the model has no revision {quoted(wanted.revision)}; give a branch, tag or commit"
        ) from error
    except Exception as error:  # of the hub, or of whichever library speaks HTTP
        return None, f"the hub cannot be reached: {library_text(error, 100)}"
    return {each.rfilename for each in info.siblings or ()}, ""


def _download(wanted: HubId, revision: str | None, names: Collection[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            wanted.repository, revision=revision, allow_patterns=sorted(names), etag_timeout=_TIMEOUT_S
        )
    except Exception as error:  # of the hub, of the disk, of whichever library speaks HTTP
        raise SourceError(
            f"{wanted} could not be downloaded ({library_text(error, 150)}): run the command again, it goes "
            "on where it was"
        ) from error
    return Path(found)


def _cached(wanted: HubId, obstacle: str) -> Path:
    """What huggingface_hub's cache holds of a checkpoint."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(
            snapshot_download(
                wanted.repository,
                revision=wanted.revision,
                local_files_only=True,
                allow_patterns=[CONFIG_FILE, OPEN_CLIP_CONFIG, ADAPTER_CONFIG],
            )
        )
    except LocalEntryNotFoundError as error:
        marked = "" if wanted.revision is None else f" --revision {wanted.revision}"
        raise SourceError(
            f"{wanted} is not in the local cache, and {obstacle}; give the path of a copied folder instead, "
            f"or run `hf download {wanted.repository}{marked}` where there is a network and copy the hub "
            "folder of HF_HOME here"
        ) from error
    return found


@contextmanager
def network(offline: bool) -> Iterator[bool]:
    """Let huggingface_hub use the network, or not, whatever HF_HUB_OFFLINE was when it was imported.

    Args:
        offline: not, as with HF_HUB_OFFLINE=1, which is heeded, too.

    Yields:
        Whether it is offline.
    """
    from huggingface_hub import constants as known

    constants: Any = known
    before = constants.HF_HUB_OFFLINE
    # the command line sets the first for everything but this
    offline = offline or (before and "POCKETVL_FETCHES" not in os.environ)
    constants.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        constants.HF_HUB_OFFLINE = before


def folder_name(folder: Path) -> str:
    """The name of a checkpoint: its folder's, or the repository's where that is a snapshot of the hub."""
    path = folder.resolve()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.split("--")[-1]
    return path.name
