"""Pictures, texts and which belong together, and the batches that training makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.launch import processes

_MIRRORED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class PairedData:
    """What two towers learn from.

    Attributes:
        images: uint8 [N, H, W, 3], as the image tower takes them; may be a memmap.
        ids: int32 [M, T], as the text tower takes them.
        pairs: for each picture the row of its caption in `ids`, then the rows of its hard negatives. Where
            there is none of those, a text is drawn for it.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.int32]
    pairs: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if len(self.images) < 2 or len(self.ids) < 2:
            raise DataError("training needs at least two pictures and two texts")
        if len(self.pairs) != len(self.images):
            raise DataError(f"{len(self.images)} pictures, but captions for {len(self.pairs)}")
        if not all(rows and min(rows) >= 0 and max(rows) < len(self.ids) for rows in self.pairs):
            raise DataError(f"a picture has no caption among the {len(self.ids)} texts")


@dataclass(frozen=True, eq=False)
class Pairing:
    """Pictures with their texts.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        ids: int32 [(1 + K) B, T]: the pictures' captions, then K times one false text for each of them.
        images: the pictures' places in the data.
        texts: the texts' places in the data.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    images: NDArray[np.int64]
    texts: NDArray[np.int64]


@dataclass(frozen=True)
class SampleOrder:
    """Which samples a step sees, a function of the step alone: a new order every time around."""

    batch_size: int
    seed: int

    def __call__(self, count: int, step: int) -> NDArray[np.int64]:
        """Ascending places among `count` samples; a memmap is read in order."""
        size = self.batch_size if count >= self.batch_size else max(1, count - count % processes())
        around, place = divmod(step, count // size)
        order = _shuffled(self.seed, around, count)
        chosen: NDArray[np.int64] = np.sort(order[place * size : (place + 1) * size])
        return chosen


@lru_cache(maxsize=4)
def _shuffled(seed: int, around: int, count: int) -> NDArray[np.int64]:
    """A pass through the data; kept, for it is the same for all of its steps."""
    order: NDArray[np.int64] = np.random.default_rng([seed, around]).permutation(count)
    order.setflags(write=False)
    return order


def rows_of(values: NDArray[np.generic], places: NDArray[np.int64]) -> torch.Tensor:
    """Some rows, copied."""
    return torch.from_numpy(np.ascontiguousarray(values[places]))


def mirror(pixels: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Pictures [B, H, W, 3], left and right turned round in those that `flipped`, bool [B], names."""
    return torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)


def half_mirrored(seed: int, step: int, count: int) -> NDArray[np.bool_]:
    """Which of a step's pictures are shown mirrored, bool [count]: every other one, by chance."""
    return np.random.default_rng([seed, step, 2]).random(count) < _MIRRORED_SHARE


def pairing(data: PairedData, order: SampleOrder, step: int, negatives: int = 1) -> Pairing:
    """The pictures of a step, with their captions and so many false texts each."""
    places = order(len(data.images), step)
    random = np.random.default_rng([order.seed, step, 1])
    captions = [data.pairs[int(place)][0] for place in places]
    false: list[int] = []
    for _ in range(negatives):
        for place in places:
            caption, *others = data.pairs[int(place)]
            if others:
                false.append(others[int(random.integers(len(others)))])
            else:  # any text but the caption
                drawn = int(random.integers(len(data.ids) - 1))
                false.append(drawn + (drawn >= caption))
    texts = np.array(captions + false)
    return Pairing(rows_of(data.images, places), rows_of(data.ids, texts), places, texts)
