"""What equalization decided, in memory and on disk. (Without torch.)"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pocketvl.network.specification import Range

EQUALIZED_FILE = "equalized.json"


@dataclass(frozen=True)
class Equalized:
    """The equalization of one LayerNorm, or of one convolution.

    Attributes:
        norm: its name in the module.
        linears: names of the linears that read it.
        strength: alpha of SmoothQuant; None where all was left as it is.
        error_before: expected squared error of the linears' outputs by rounding weights and input, each in
            parts of the output's mean square, summed over the linears.
        error_after: the same with what was decided.
        factors: by how much each channel was divided, and the weights that read it multiplied; None where all
            was left as it is.
        inputs: of each linear the range of what goes in afterwards; None where all was left as it is.
        sums: names of BERT's sums that multiply by the factors what the LayerNorm gives.
    """

    norm: str
    linears: tuple[str, ...]
    strength: float | None
    error_before: float
    error_after: float
    factors: tuple[float, ...] | None = None
    inputs: tuple[Range, ...] | None = None
    sums: tuple[str, ...] = ()


def save_equalized(decided: Iterable[Equalized], folder: Path) -> None:
    """Write what was decided, a LayerNorm each."""
    document = [dataclasses.asdict(each) for each in decided]
    (folder / EQUALIZED_FILE).write_text(json.dumps(document) + "\n", encoding="utf-8")


def read_equalized(folder: Path) -> tuple[Equalized, ...]:
    """Read what `save_equalized` wrote."""
    text = (folder / EQUALIZED_FILE).read_text(encoding="utf-8")
    return TypeAdapter(tuple[Equalized, ...]).validate_json(text)
