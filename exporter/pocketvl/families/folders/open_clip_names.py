"""Models that open_clip knows by name: `open_clip:NAME/PRETRAINED`, by its own table and cache.

Source: open_clip 3.3, `create_model` and `get_pretrained_cfg` (what a name and a tag mean),
`download_pretrained` (where weights are kept: huggingface_hub's cache, or ~/.cache/clip).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import OPEN_CLIP_CONFIG
from pocketvl.families.folders.hub import network
from pocketvl_runtime.errors import library_text, quoted, shortened

PREFIX = "open_clip:"
_FORM = f"write {PREFIX}NAME/PRETRAINED, as {PREFIX}ViT-B-32/laion2b_s34b_b79k"
_CACHE = Path("~/.cache/clip")


@dataclass(frozen=True)
class PretrainedName:
    """A model by open_clip's name.

    Attributes:
        model: the name of its configuration, "ViT-B-32".
        pretrained: a tag of its weights, "laion2b_s34b_b79k", or the path of a file of weights.
    """

    model: str
    pretrained: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.model}/{self.pretrained}"


@dataclass(frozen=True)
class Pretrained:
    """What open_clip has of a model.

    Attributes:
        name: for its folder.
        description: the content of its open_clip_config.json.
        weights: the file.
    """

    name: str
    description: str
    weights: Path


def parse_pretrained_name(source: str | Path) -> PretrainedName | None:
    """The name that a source is; None where it is a path or a hub id.

    Raises:
        SourceError: it begins like one, and is none.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return None
    model, _, pretrained = text.removeprefix(PREFIX).partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model) or not pretrained:
        raise SourceError(f"{quoted(text)} is no name of open_clip's; {_FORM}")
    return PretrainedName(model, pretrained)


def find_pretrained(wanted: PretrainedName, offline: bool = False) -> Pretrained:
    """Find a model by open_clip's name; weights are downloaded where its cache has not got them.

    What the configuration asks for is checked first.

    Args:
        wanted: which.
        offline: take weights from the cache alone, as with HF_HUB_OFFLINE=1.

    Raises:
        SourceError: open_clip is not installed or knows no such model, the model is not supported, or neither
            network nor cache has its weights.
    """
    from pocketvl.families import family_named

    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise SourceError(
            f'{wanted} is a name of open_clip, which is not installed: pip install "pocketvl[open-clip]"'
        ) from error
    model = open_clip.get_model_config(wanted.model)
    if model is None:
        known = open_clip.list_models()
        near = get_close_matches(wanted.model, known, 3) or known[:3]
        raise SourceError(
            f"{wanted}: open_clip has no model {quoted(wanted.model)}; it has {', '.join(near)} and others"
        )
    tagged = open_clip.get_pretrained_cfg(wanted.model, wanted.pretrained)
    # of "NAME//path" a Path has made "NAME/path"
    files = (Path(wanted.pretrained), Path("/", wanted.pretrained))
    file = next((each for each in files if each.is_file()), files[0])
    if not tagged and not file.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(wanted.model)) or "none"
        raise SourceError(
            f"{wanted}: open_clip has no weights {quoted(wanted.pretrained)} of {wanted.model}, and there is "
            f"no such file; it has {shortened(tags, 300)}"
        )
    keys = ("mean", "std", "interpolation", "resize_mode")
    preprocess = {key: tagged[key] for key in keys if tagged.get(key) is not None}
    description = {"model_cfg": model, "preprocess_cfg": preprocess}
    family_named("open-clip").architecture().parse(json.loads(json.dumps(description)), Path(str(wanted)))
    _check_tokenizer(wanted, model, tagged)
    _check_activation(wanted, model, tagged)
    weights = _weights(wanted, tagged, offline) if tagged else file
    name = f"{wanted.model}-{wanted.pretrained if tagged else file.stem}"
    return Pretrained(name, json.dumps(description, indent=2), weights)


def _check_activation(wanted: PretrainedName, model: dict[str, Any], tagged: dict[str, Any]) -> None:
    """Raise SourceError where weights were trained with the other GELU; open_clip warns of it."""
    trained = bool(tagged.get("quick_gelu"))
    if not tagged or trained == bool(model.get("quick_gelu")):
        return
    other = f"{wanted.model}-quickgelu" if trained else wanted.model.removesuffix("-quickgelu")
    how = "with" if trained else "without"
    raise SourceError(
        f"{wanted}: {quoted(wanted.pretrained)} was trained {how} QuickGELU; take "
        f"{PretrainedName(other, wanted.pretrained)}"
    )


def _check_tokenizer(wanted: PretrainedName, model: dict[str, Any], tagged: dict[str, Any]) -> None:
    """Raise SourceError where a name leads to no tokenizer."""
    named = model.get("text_cfg", {}).get("hf_tokenizer_name")
    if not named:
        return
    repository = str(tagged.get("hf_hub", "")).rpartition("/")[0]
    advice = (
        f"take hf:{repository}"
        if repository
        else f"give a folder with that tokenizer's files and {OPEN_CLIP_CONFIG}"
    )
    raise SourceError(
        f"{wanted}: its tokenizer is the hub's {quoted(named)}, which no name leads to; {advice}"
    )


def _weights(wanted: PretrainedName, tagged: dict[str, Any], offline: bool) -> Path:
    import open_clip

    url = "" if tagged.get("hf_hub") else str(tagged.get("url", ""))
    kept = _CACHE.expanduser() / url.rpartition("/")[2]
    try:
        with network(offline) as is_offline:
            if url and is_offline and not kept.is_file():
                raise FileNotFoundError(f"{kept} is not there")
            return Path(open_clip.download_pretrained(tagged))
    except Exception as error:  # of the hub, of the disk, of whichever library speaks HTTP
        raise SourceError(
            f"{wanted}: its weights are not in the local cache and cannot be downloaded "
            f"({library_text(error, 150)}); download them where there is a network, and give "
            f"{PREFIX}{wanted.model}/FILE"
        ) from error
