"""The weights of a Hugging Face model folder: safetensors or PyTorch's own files, whole or in shards."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import is_open_clip
from pocketvl.families.folders.hf import read_json
from pocketvl.network.heads import FixedScalar, Scalar, StoredScalar
from pocketvl_runtime.errors import library_text, quoted, shortened

if TYPE_CHECKING:
    import torch

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
OPEN_CLIP_SAFETENSORS = "open_clip_model.safetensors"
OPEN_CLIP_WEIGHTS = (
    OPEN_CLIP_SAFETENSORS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
"""Names of an open_clip model's weights, as open_clip prefers them."""
_OPEN_CLIP_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
INDEX_SUFFIX = ".index.json"
_MODEL_OF_TRAINING, _WRAPPED = "state_dict", "module."
"""In the checkpoint of a training: where the model's tensors are, and what DistributedDataParallel writes
before their names."""


@dataclass(frozen=True)
class WeightFiles:
    """Which files of a folder hold its weights.

    Attributes:
        folder: the folder.
        names: of the files.
        by_tensor: of a folder in shards, the file that holds each tensor; else None.
        pickled: whether they are PyTorch's own files, which are pickles.
    """

    folder: Path
    names: tuple[str, ...]
    by_tensor: Mapping[str, str] | None = None
    pickled: bool = False

    def of(self, tensor: str) -> Path:
        """The file that holds a tensor.

        Raises:
            SourceError: the index names none.
        """
        if self.by_tensor is None:
            return self.folder / self.names[0]
        if tensor not in self.by_tensor:
            raise SourceError(f"{self.folder}: the index of the weights names no file that holds {tensor}")
        return self.folder / self.by_tensor[tensor]


def weight_files(folder: Path) -> WeightFiles:
    """Find a folder's weights: safetensors before pickles, one file before shards, as transformers does.

    Of an open_clip model, those of `OPEN_CLIP_WEIGHTS`, or the only file of weights that there is.

    Raises:
        SourceError: there are none, or an index is broken or names files that are not there.
    """
    if is_open_clip(folder):
        return _open_clip_weights(folder)
    for name in (SAFETENSORS, PICKLED):
        pickled = name == PICKLED
        if (folder / name).exists():
            return WeightFiles(folder, (name,), pickled=pickled)
        index = folder / f"{name}{INDEX_SUFFIX}"
        if index.exists():
            by_tensor = read_index(index)
            found = WeightFiles(folder, tuple(sorted(set(by_tensor.values()))), by_tensor, pickled)
            missing = [name for name in found.names if not (folder / name).exists()]
            if missing:
                more = f" ({len(missing)} of {len(found.names)} shards are missing)"
                raise SourceError(f"{folder} has no {missing[0]}, which {index.name} names{more}")
            return found
    others = sorted(
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.safetensors")
        for path in folder.glob(pattern)
    )
    hint = f"; {others[0]} is not read: save the model with transformers' save_pretrained" if others else ""
    raise SourceError(f"{folder} has no {SAFETENSORS} and no {PICKLED}{hint}")


def _open_clip_weights(folder: Path) -> WeightFiles:
    """As open_clip finds them, but never one of several."""
    there = {path.name for path in folder.iterdir() if path.suffix in _OPEN_CLIP_SUFFIXES}
    known = [name for name in (*OPEN_CLIP_WEIGHTS, SAFETENSORS, PICKLED) if name in there]
    if not known and len(there) != 1:
        found = f"; it has {', '.join(sorted(there)[:3])}: rename the one that is meant" if there else ""
        raise SourceError(f"{folder} has no {OPEN_CLIP_SAFETENSORS} and no {OPEN_CLIP_WEIGHTS[2]}{found}")
    name = known[0] if known else there.pop()
    return WeightFiles(folder, (name,), pickled=not name.endswith(".safetensors"))


def read_index(path: Path) -> dict[str, str]:
    """The file that holds each tensor, by an index of shards.

    Raises:
        SourceError: it is broken, or names files elsewhere.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise SourceError(f"{path} has no weight_map from tensor names to file names")
    for name in weight_map.values():
        if Path(name).name != name:
            raise SourceError(f"{path} names {quoted(name)}, which is not a plain file name")
    return weight_map


def check_weight_files(folder: Path) -> None:
    """Raise SourceError where weights are missing or cut short; reads headers only, and needs no torch."""
    from safetensors import safe_open

    files = weight_files(folder)
    for name in files.names if not files.pickled else ():
        with _errors(folder / name), safe_open(folder / name, framework="np"):
            pass


def most_parameters(folder: Path) -> int:
    """How many numbers a folder's weights are at most, by headers alone; of pickles by their size in fp16.

    Raises:
        SourceError: no weights, or broken ones.
    """
    from safetensors import safe_open

    files, total = weight_files(folder), 0
    for name in files.names:
        if files.pickled:
            total += (folder / name).stat().st_size // 2
            continue
        with _errors(folder / name), safe_open(folder / name, framework="np") as file:
            total += sum(math.prod(file.get_slice(each).get_shape()) for each in file.keys())  # noqa: SIM118
    return total


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read a folder's weights into memory.

    Returns:
        Tensors by name, in the dtype they are stored in.

    Raises:
        SourceError: no weights, or broken ones.
    """
    files = weight_files(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name in files.names:
        tensors.update(_read_file(folder / name, files.pickled))
    _check_index(files, tensors)
    return tensors


def describe_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The names and shapes of a folder's tensors, as fp32 tensors on the meta device: their headers alone.

    Raises:
        SourceError: no weights, or broken ones.
    """
    import torch
    from safetensors import safe_open

    files = weight_files(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name in files.names:
        if files.pickled:
            tensors.update(_unpickled(folder / name, "meta"))
            continue
        with _errors(folder / name), safe_open(folder / name, framework="np") as file:
            shapes = {each: file.get_slice(each).get_shape() for each in file.keys()}  # noqa: SIM118
        tensors.update({each: torch.empty(shape, device="meta") for each, shape in shapes.items()})
    _check_index(files, tensors)
    return tensors


def _check_index(files: WeightFiles, tensors: Mapping[str, torch.Tensor]) -> None:
    lost = sorted(set(files.by_tensor or ()) - set(tensors))
    if lost:
        raise SourceError(
            f"{files.folder}: the index of the weights lists {len(lost)} tensors that no shard holds, "
            f"{shortened(lost[0], 100)} for one"
        )


def _read_file(path: Path, pickled: bool) -> dict[str, torch.Tensor]:
    return _unpickled(path, "cpu") if pickled else read_safetensors(path)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of one file into memory.

    Raises:
        SourceError: it is missing or broken.
    """
    from safetensors.torch import load_file

    with _errors(path):
        return load_file(path)


def _unpickled(path: Path, device: str) -> dict[str, torch.Tensor]:
    """Tensors of a file that torch.save wrote; nothing but tensors and plain values is made of it."""
    import torch

    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {named[1]}" if named else library_text(error, 150)
        raise SourceError(
            f"{path} is not loaded, because it is damaged or holds more than tensors, which could run code "
            f"({reason}): save the weights as safetensors"
        ) from error
    except Exception as error:  # of zip files, of old formats, of sizes: whatever torch raises
        raise SourceError(
            f"{path} is not a readable PyTorch file: {library_text(error, 200)}; "
            "it may be cut short: copy it again"
        ) from error
    if isinstance(found, dict) and isinstance(found.get(_MODEL_OF_TRAINING), dict):
        found = found[_MODEL_OF_TRAINING]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise SourceError(f"{path} holds no plain table of tensors; save the model's state_dict alone")
    if found and all(name.startswith(_WRAPPED) for name in found):
        return {name.removeprefix(_WRAPPED): value for name, value in found.items()}
    return dict(found)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What is wrong with a safetensors file, in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        cut = "; it may be cut short: copy it again" if "incomplete" in str(error).lower() else ""
        raise SourceError(
            f"{path} is not a readable safetensors file: {shortened(str(error), 200)}{cut}"
        ) from error


def weight_notes(files: WeightFiles, dtype: torch.dtype) -> tuple[str, ...]:
    """What the user should know of a folder's weights, one sentence each.

    Args:
        files: the folder's.
        dtype: of most of its tensors.
    """
    import torch

    notes = []
    if files.pickled:
        writer = (
            "open_clip's push_to_hf_hub" if is_open_clip(files.folder) else "transformers' save_pretrained"
        )
        notes.append(
            f"{files.names[0]} is a pickle, of which tensors alone were read; safetensors is safer: "
            f"{writer} writes it"
        )
    if dtype != torch.float32:
        stored = str(dtype).removeprefix("torch.")
        notes.append(f"weights are stored in {stored}, and computed with in float32")
    return tuple(notes)


def read_scalar(folder: Path, stored: Scalar) -> float:
    """Read one number of a head, of a folder's weights (of safetensors nothing else) or one that is fixed.

    Raises:
        SourceError: no weights, broken ones, or no such number among them.
    """
    from safetensors import safe_open

    if isinstance(stored, FixedScalar):
        return stored.value
    files = weight_files(folder)
    path = files.of(stored.tensor)
    if files.pickled:
        tensor = _unpickled(path, "cpu").get(stored.tensor)
    else:
        with _errors(path), safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(stored.tensor) if stored.tensor in file.keys() else None  # noqa: SIM118
    if tensor is None:
        raise SourceError(f"{path}: {stored.tensor} cannot be read: there is no such tensor")
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
