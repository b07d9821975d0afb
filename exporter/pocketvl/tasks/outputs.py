"""What a model gives for a dataset, by output port, in memory and in a file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError

OUTPUTS_FILE = "outputs.npz"
_TEXTS, _MOST = "texts", "most"  # no port is called so: theirs have a dot


@dataclass(frozen=True, eq=False)
class Outputs:
    """The output rows of one model for one dataset.

    Attributes:
        arrays: by port, "image_encoder.embedding": float32 [N, ...], in the order in which its task asks.
        texts: what was read, in the order of the rows of the port whose component read it.
        most: of each port there are no more rows, those of inputs that are spread evenly; None: all.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    texts: tuple[str, ...]
    most: int | None = None

    def __getitem__(self, port: str) -> NDArray[np.float32]:
        """The rows of a port.

        Raises:
            DataError: there are none.
        """
        if port not in self.arrays:
            raise DataError(f"no outputs of {port}, only of {', '.join(self.arrays) or 'nothing'}")
        return self.arrays[port]


def component_of(port: str) -> str:
    """The component of a port, "component.port"."""
    return port.partition(".")[0]


def save_outputs(path: Path, outputs: Outputs) -> None:
    """Writes an .npz: a float32 array a port, `texts` (a JSON list as UTF-8 bytes), and `most`, if any."""
    about = {_TEXTS: np.frombuffer(json.dumps(list(outputs.texts)).encode(), dtype=np.uint8)}
    if outputs.most is not None:
        about[_MOST] = np.array(outputs.most)
    with path.open("wb") as out:
        np.savez(out, allow_pickle=False, **about, **outputs.arrays)


def load_outputs(path: Path) -> Outputs:
    """Reads what `save_outputs` wrote.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name not in (_TEXTS, _MOST)}
            texts = json.loads(stored[_TEXTS].tobytes())
            most = int(stored[_MOST]) if _MOST in stored.files else None
    except (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a file of a model's outputs ({error}); delete it") from error
    for port, rows in arrays.items():
        if rows.dtype != np.float32:
            raise DataError(f"{path}: {port} is {rows.dtype} where float32 is expected")
    return Outputs(arrays, tuple(texts), most)
