"""A calibration on disk is the one that was saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.errors import DataError
from pocketvl.network.specification import Range
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.calibration import Calibration, read_warnings
from pocketvl.observe.settings import CalibrationSettings


class Shared(nn.Module):
    """Two linears that read one tensor, a third that reads another, a convolution in groups before them."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(2, 4, 1, groups=2)
        self.left, self.right, self.last = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.grouped(x).flatten(2).transpose(1, 2)
        z: torch.Tensor = self.last(self.left(y) + self.right(y))
        return z


@pytest.fixture
def seen() -> Calibration:
    torch.manual_seed(0)
    feeds = np.random.default_rng(0).normal(size=(5, 1, 2, 3, 3)).astype(np.float32)
    found = calibrate(Shared().eval(), list(feeds), CalibrationSettings(second_moments=True))
    return Calibration(
        found.layers, {"a.scores": (Range(-1.0, 0.1), Range(0.0, 3.3), Range(-2.0, 0.2))}, found.warnings
    )


def test_everything_comes_back(seen: Calibration, tmp_path: Path) -> None:
    seen.save(tmp_path)
    again = Calibration.load(tmp_path)
    assert list(again.layers) == list(seen.layers)
    assert again.products == seen.products
    assert again.warnings == seen.warnings == read_warnings(tmp_path)
    for name, layer in seen.layers.items():
        found = again.layers[name]
        assert (found.input, found.output) == (layer.input, layer.output)
        np.testing.assert_array_equal(found.input_mean, layer.input_mean)
        assert (found.second_moment is None) == (layer.second_moment is None) == (name == "grouped")
        if layer.second_moment is not None:
            np.testing.assert_array_equal(found.second_moment, layer.second_moment)


def test_what_was_shared_is_written_once_and_shared_again(seen: Calibration, tmp_path: Path) -> None:
    seen.save(tmp_path)
    layers = Calibration.load(tmp_path).layers
    assert layers["left"].second_moment is layers["right"].second_moment
    assert layers["left"].second_moment is not layers["last"].second_moment
    distinct = 8 * (2 * (4 * 4 + 4) + 2 * 1)  # float64: two moments with means, and the groups' means
    assert (tmp_path / "seen.safetensors").stat().st_size < distinct + 1024


def test_the_same_calibration_is_the_same_bytes(seen: Calibration, tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        seen.save(tmp_path / place)
    for file in ("seen.safetensors", "ranges.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("break_it", ["missing", "truncated", "version", "tensor"])
def test_what_is_no_calibration_is_said(seen: Calibration, tmp_path: Path, break_it: str) -> None:
    seen.save(tmp_path)
    ranges = tmp_path / "ranges.json"
    document = json.loads(ranges.read_text())
    if break_it == "missing":
        ranges.unlink()
    elif break_it == "truncated":
        ranges.write_bytes(ranges.read_bytes()[:-20])
    elif break_it == "version":
        ranges.write_text(json.dumps(document | {"schema_version": 99}))
    else:
        document["layers"]["left"]["input_mean"] = "elsewhere"
        ranges.write_text(json.dumps(document))
    with pytest.raises(DataError, match="calibration|version 99"):
        Calibration.load(tmp_path)
