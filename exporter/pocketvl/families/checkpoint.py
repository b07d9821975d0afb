"""Reading the files of a Hugging Face model folder: JSON, safetensors weights, tokenizer."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from pocketvl.errors import SourceError
from pocketvl.families.token_ids import check_ids
from pocketvl_runtime.errors import quoted, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, with or without a byte order mark before it.

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


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads model.safetensors, or the shards that model.safetensors.index.json names, into memory.

    Returns:
        Tensors by name, in the dtype they are stored in.

    Raises:
        SourceError: no safetensors weights, or broken ones.
    """
    if (folder / _WEIGHTS).exists():
        return _read_shard(folder / _WEIGHTS)
    if not (folder / _INDEX).exists():
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        hint = (
            f"; {pickled[0]} is not loaded, because pickles can run code: save it as safetensors"
            if pickled
            else ""
        )
        raise SourceError(f"{folder} has no {_WEIGHTS}{hint}")
    index = read_json(folder / _INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise SourceError(f"{folder / _INDEX} has no weight_map from tensor names to file names")
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise SourceError(f"{folder / _INDEX} names {quoted(shard)}, which is not a plain file name")
        tensors.update(_read_shard(folder / shard))
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise SourceError(
            f"{folder / _INDEX} lists {len(lost)} tensors that no shard holds, "
            f"{shortened(lost[0], 100)} for one"
        )
    return tensors


def stored_dtype(folder: Path) -> torch.dtype:
    """The float type in which a folder stores its weights: that of most of its tensors.

    Raises:
        SourceError: no safetensors weights, or broken ones.
    """
    return Counter(tensor.dtype for tensor in read_weights(folder).values()).most_common(1)[0][0]


def _read_shard(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(
            f"{path} is not a readable safetensors file: {shortened(str(error), 200)}"
        ) from error


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], where: Path) -> None:
    """Holds the names and shapes of `weights` against a model.

    Args:
        model: on any device, meta too.
        weights: tensors by parameter name; those that `model` has no parameter for must be none but the
            position indices that old versions of transformers stored.
        where: the folder, for messages.

    Raises:
        SourceError: a tensor is missing, too many or of the wrong shape.
    """
    wanted, given = model.state_dict(), _parameters(weights)
    for problem, names in (
        ("lack", sorted(set(wanted) - set(given))),
        ("hold unknown", sorted(set(given) - set(wanted))),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise SourceError(
                f"{where}: the weights {problem} {shortened(names[0], 100)}{more}; "
                "config.json describes another model"
            )
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise SourceError(
                f"{where}: {name} is {list(tensor.shape)}, config.json asks for {list(wanted[name].shape)}"
            )


def load_weights_(model: nn.Module, weights: Mapping[str, torch.Tensor], where: Path) -> None:
    """Copies `weights` into `model`, which keeps its own dtype (fp16 files load into fp32 models).

    Args:
        model: its parameters are overwritten in place.
        weights: as `check_weights` takes them.
        where: the folder, for messages.

    Raises:
        SourceError: a tensor is missing, too many, of the wrong shape, or holds NaN or infinity.
    """
    import torch

    check_weights(model, weights, where)
    given = _parameters(weights)
    for name, tensor in given.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise SourceError(f"{where}: {name} ({tensor.dtype}) holds values that are not finite floats")
    model.load_state_dict(given)


def _parameters(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.endswith("position_ids")}


@dataclass(frozen=True)
class TokenizerFile:
    """A folder's tokenizer.json with what tokenizer_config.json says beside it.

    Attributes:
        content: tokenizer.json, byte for byte, but for a byte order mark.
        tokenizer: the same, opened, without truncation and padding.
        limit: the longest text in tokens, special ones included; None if nothing is said.
        eos_id: the id that ends every text.
        pad_id: the id that fills up short texts.
    """

    content: bytes
    tokenizer: Tokenizer
    limit: int | None
    eos_id: int
    pad_id: int

    @property
    def highest_id(self) -> int:
        """The highest id that a text can become."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values())


def read_tokenizer(folder: Path) -> TokenizerFile:
    """Reads tokenizer.json and, where it exists, tokenizer_config.json.

    Raises:
        SourceError: tokenizer.json is missing or broken, texts do not end with one special token, or
            transformers makes other ids of them.
    """
    path = folder / "tokenizer.json"
    stored = read_json(path)
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise SourceError(
            f"{path} is not a tokenizer that `tokenizers` can open: {shortened(str(error), 200)}"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    empty = tokenizer.encode("").ids
    probe = tokenizer.encode("a").ids
    if not probe or not empty or probe[-1] != empty[-1]:
        raise SourceError(f"{path}: texts do not end with a special token (its post_processor adds none)")
    limit = _length_limit(config, stored, config_path)
    pad_id = _pad_id(config, stored, tokenizer, probe[-1], config_path)
    theirs = check_ids(folder, tokenizer)
    return TokenizerFile(
        content=content,
        tokenizer=tokenizer,
        limit=limit,
        eos_id=probe[-1],
        pad_id=pad_id if theirs is None else theirs,
    )


def _length_limit(config: dict[str, Any], stored: dict[str, Any], path: Path) -> int | None:
    limit = config.get("model_max_length")
    if limit is None:
        limit = (stored.get("truncation") or {}).get("max_length")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise SourceError(f"{path}: model_max_length is {quoted(limit)}, not a positive number")
    return int(min(limit, 2**31))  # transformers writes 1e30 for "no limit"


def _pad_id(
    config: dict[str, Any], stored: dict[str, Any], tokenizer: Tokenizer, eos_id: int, path: Path
) -> int:
    token = config.get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        padding = stored.get("padding") or {}
        pad_id = padding.get("pad_id", eos_id)
        return int(pad_id) if isinstance(pad_id, int) else eos_id
    pad_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if pad_id is None:
        raise SourceError(f"{path}: pad_token is {quoted(token)}, which is not in tokenizer.json")
    return int(pad_id)
