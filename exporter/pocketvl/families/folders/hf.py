"""Reading the files of a Hugging Face model folder: JSON and safetensors weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvl.errors import SourceError
from pocketvl.network.heads import FixedScalar, Scalar, StoredScalar
from pocketvl_runtime.errors import quoted, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


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


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read model.safetensors, or the shards that model.safetensors.index.json names, into memory.

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
    """Compare the names and shapes of `weights` with a model's.

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
    """Copy `weights` into `model`, which keeps its own dtype (fp16 files load into fp32 models).

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


def read_scalar(folder: Path, stored: Scalar) -> float:
    """Read one number of a head: of a folder's weights, and nothing else of them, or one that is fixed.

    Raises:
        SourceError: no safetensors weights, broken ones, or no such number among them.
    """
    from safetensors import SafetensorError, safe_open

    if isinstance(stored, FixedScalar):
        return stored.value
    path = _file_of(folder, stored.tensor)
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(stored.tensor)
    except FileNotFoundError:
        raise SourceError(f"{folder} has no {path.name}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{path}: {stored.tensor} cannot be read: {shortened(str(error), 200)}") from error
    return scalar_value(stored, tensor, folder)


def scalar_value(stored: StoredScalar, tensor: torch.Tensor, where: Path) -> float:
    """The number that one of a folder's tensors says.

    Raises:
        SourceError: it is not one number, or not the logarithm of anything sensible.
    """
    if tensor.numel() != 1:
        raise SourceError(f"{where}: {stored.tensor} is {list(tensor.shape)}; one number is needed")
    value = float(tensor.detach())
    if not stored.is_log:
        return value
    if not -20 < value < 20:
        raise SourceError(f"{where}: {stored.tensor} is {value}, which is not the logarithm of a temperature")
    return math.exp(value)


def _file_of(folder: Path, tensor: str) -> Path:
    """Which file holds a tensor."""
    if (folder / _WEIGHTS).exists() or not (folder / _INDEX).exists():
        return folder / _WEIGHTS
    weight_map = read_json(folder / _INDEX).get("weight_map")
    name = weight_map.get(tensor) if isinstance(weight_map, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise SourceError(f"{folder / _INDEX} names no file that holds {tensor}")
    return folder / name
