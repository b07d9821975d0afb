"""Model families: read checkpoint folders into a contract and components; one file a family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import SourceError
from pocketvl.families.base import Component, Contract, Family
from pocketvl.network.heads import HeadKind
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import Modality

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

# A plain table, so that importing this package imports no torch, and so that a family is added here and
# nowhere else.
FAMILIES = (
    Family(
        "clip",
        ("clip", "metaclip_2"),
        "pocketvl.families.clip",
        ("image_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
    ),
    Family(
        "blip",
        ("blip",),
        "pocketvl.families.blip",
        ("image_encoder", "text_encoder", "fusion"),
        HeadKind.CONTRASTIVE,
        reranker="fusion",
    ),
    Family(
        "chinese-clip",
        ("chinese_clip",),
        "pocketvl.families.chinese_clip",
        ("image_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
    ),
    Family(
        "open-clip",
        (),
        "pocketvl.families.open_clip",
        ("image_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
    ),
    Family(
        "siglip",
        ("siglip", "siglip2"),
        "pocketvl.families.siglip",
        ("image_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
    ),
    Family(
        "clap",
        ("clap",),
        "pocketvl.families.clap",
        ("audio_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
        Modality.AUDIO,
    ),
    Family(
        "clip-vision",
        ("clip_vision_model",),
        "pocketvl.families.clip_vision",
        ("image_encoder",),
        HeadKind.IMAGE_EMBEDDING,
    ),
    Family(
        "clip-text",
        ("clip_text_model",),
        "pocketvl.families.clip_text",
        ("text_encoder",),
        HeadKind.TEXT_EMBEDDING,
    ),
    Family(
        "siglip-vision",
        ("siglip_vision_model",),
        "pocketvl.families.siglip_vision",
        ("image_encoder",),
        HeadKind.IMAGE_EMBEDDING,
    ),
    Family(
        "siglip-text",
        ("siglip_text_model",),
        "pocketvl.families.siglip_text",
        ("text_encoder",),
        HeadKind.TEXT_EMBEDDING,
    ),
    Family(
        "vilt",
        ("vilt",),
        "pocketvl.families.vilt",
        ("fusion",),
        HeadKind.LABELS,
    ),
    Family(
        "vision-text-dual-encoder",
        ("vision-text-dual-encoder",),
        "pocketvl.families.dual_encoder",
        ("image_encoder", "text_encoder"),
        HeadKind.CONTRASTIVE,
    ),
)


def family_of(folder: Path) -> Family:
    """The family of a model folder, by its config.json or open_clip_config.json alone; imports no torch.

    Raises:
        SourceError: it is no such folder, or of no family that pocketvl knows.
    """
    from pocketvl.families.folders.files import is_open_clip
    from pocketvl.families.folders.hf import custom_code, read_json

    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise SourceError(
            f"{folder} {what}; give the path of a Hugging Face model folder, or hf:ORG/NAME[@REVISION]"
        )
    if is_open_clip(folder):
        return family_named("open-clip")
    stored = read_json(folder / "config.json")
    model_type = stored.get("model_type")
    for family in FAMILIES:
        if model_type in family.model_types:
            return _without_dropped(family, folder)
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    code = custom_code(stored)
    own = "" if code is None else f"; it needs code of its own ({code}), which is never run"
    raise SourceError(
        f"{folder / 'config.json'}: model_type {quoted(model_type)} is not known (known: {known}){own}; "
        'a family is one file: see "A model family" in CONTRIBUTING.md'
    )


def _without_dropped(family: Family, folder: Path) -> Family:
    """A family as a folder's checkpoint is of it, of which the second head may have been dropped.

    Raises:
        SourceError: something else is said to have been.
    """
    from pocketvl.families.folders.files import COMPRESSION_FILE
    from pocketvl.families.folders.hf import dropped_components

    dropped = dropped_components(folder)
    unknown = [name for name in dropped if name != family.reranker]
    if unknown:
        raise SourceError(
            f"{folder / COMPRESSION_FILE}: {quoted(unknown[0])} is dropped, which is no second head of "
            f"{family.name} models"
        )
    if not dropped:
        return family
    return replace(family, components=family.trained, reranker=None)


def family_named(name: str) -> Family:
    """A family by the name that reports and bundles call it.

    Raises:
        SourceError: there is none of that name.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise SourceError(f"family {quoted(name)} is not known (known: {', '.join(f.name for f in FAMILIES)})")


def read_contract(folder: Path) -> Contract:
    """Read a checkpoint's contract, without its weights; never accesses the network.

    Args:
        folder: holds config.json, tokenizer.json and, mostly, preprocessor_config.json.

    Raises:
        SourceError: the folder or one of its files is missing, broken or does not fit the others.
    """
    return family_of(folder).contract(folder)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a Hugging Face model folder of a family that pocketvl knows; never touches the network.

    Args:
        folder: as `read_contract` takes it, and with safetensors weights, which are read once.

    Returns:
        The model in eval mode, fp32, on the CPU, with its contract.

    Raises:
        SourceError: the folder or one of its files is missing, broken or does not fit the others.
    """
    return family_of(folder).open(folder)


def check_checkpoint(folder: Path) -> None:
    """Compare a folder's tensors, by their names and shapes, with its config.json; takes a second.

    Raises:
        SourceError: the folder or one of its files is missing, broken or does not fit the others.
    """
    family_of(folder).check(folder)


def parameter_counts(contract: Contract) -> dict[str, dict[str, int]]:
    """How many numbers each parameter of each component of a checkpoint has; its weights are not read.

    Args:
        contract: of the folder.

    Raises:
        SourceError: the folder has changed since, and describes no such model any more.
    """
    from pocketvl.families.checkpoint import parameter_counts

    return parameter_counts(family_of(contract.folder).architecture(), contract)


def uninitialised_component(contract: Contract, name: str) -> Component:
    """A component as its folder describes it, in eval mode, whose weights are yet to be loaded.

    The folder's own weights are not read.

    Args:
        contract: of the folder.
        name: of the component.

    Raises:
        SourceError: the folder has changed since, and describes no such model any more.
    """
    from pocketvl.families.checkpoint import uninitialised

    return uninitialised(family_of(contract.folder).architecture(), contract, name)
