"""In which batches rows are shown to a module, and how many tokens of texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families.batches import batches, cut
from pocketvl.families.layers.prefix import MasksPadding, read_lengths

IDS = np.array([[5, 6, 0, 0], [5, 0, 0, 0], [5, 6, 7, 8], [9, 6, 0, 0], [0, 0, 0, 0], [3, 0, 4, 0]])


class Masking(nn.Module, MasksPadding):
    """Says that it reads no padding."""

    pad_id = 0


@pytest.mark.parametrize("module", [None, nn.Linear(2, 2)])
def test_rows_of_what_reads_everything_come_as_they_are(module: nn.Module | None) -> None:
    shown = list(batches(module, IDS, 6, size=4))
    assert [rows.tolist() for rows, _ in shown] == [[0, 1, 2, 3], [4, 5]]
    assert [IDS[rows, :length].shape for rows, length in shown] == [(4, 4), (2, 4)]


def test_texts_come_with_those_as_long() -> None:
    shown = [(rows.tolist(), length) for rows, length in batches(Masking(), IDS, 6, size=4)]
    assert shown == [([0, 3], 2), ([1, 4], 1), ([2], 4), ([5], 3)]
    assert [rows.tolist() for rows, _ in batches(Masking(), IDS, 6, size=1)] == [[row] for row in range(6)]


def test_padding_between_tokens_is_read() -> None:
    assert read_lengths(Masking(), torch.from_numpy(IDS)).tolist() == [2, 1, 4, 2, 1, 3]


def test_nothing_but_texts_is_cut() -> None:
    pixels = np.arange(24).reshape(2, 4, 3)
    found = cut([pixels, IDS[:2]], texts=1, length=2)
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(found[1], IDS[:2, :2])
    assert not np.shares_memory(found[1], IDS)
