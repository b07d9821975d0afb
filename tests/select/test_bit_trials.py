"""A choice of bits answers as its simulated towers do, and no tower is embedded twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl.evaluate.soft import soft_accuracy
from pocketvl.network.integers import QuantizedTower
from pocketvl.network.specification import Granularity, GridSpec, LayerSpec, Mode, Scheme, TowerSpec
from pocketvl.observe.calibrate import Calibration
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.quantize.simulate import simulated
from pocketvl.quantize.tower import quantize_tower
from pocketvl.select.bit_trials import FLOAT, BitTrials, TowerChoices
from pocketvl.select.search import Group
from pocketvl_runtime.manifest import Role
from tests.evaluate.worlds import dataset, sample

SAMPLES, WIDTH, SCALE = 130, 10, 8.0
LAYERS = ("first", "second", "last")
IMAGE, TEXT = Role.IMAGE_ENCODER, Role.TEXT_ENCODER
NEAREST = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


class Tower(nn.Module):
    """Three linears; it counts the rows that it was shown."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.last = nn.Linear(WIDTH, 6)
        self.rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return nn.functional.normalize(self.last(x), dim=-1)


def choices(seed: int) -> TowerChoices:
    module, towers = Tower(seed).eval(), {}
    for bits in (4, 8):
        grid = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
        spec = TowerSpec(dict.fromkeys(LAYERS, LayerSpec(Mode.DYNAMIC, grid)))
        towers[bits] = quantize_tower(module, spec, Calibration({}), NEAREST)
    inputs = np.random.default_rng(seed).normal(size=(SAMPLES, WIDTH)).astype(np.float32)
    return TowerChoices(module, towers, inputs)


def group(role: Role, *layers: str) -> Group:
    return Group(role, layers, (4, 8, FLOAT), {4: 1, 8: 2, FLOAT: 8}, {4: 0.1, 8: 0.01, FLOAT: 0.0})


GROUPS = (group(IMAGE, "first", "second"), group(TEXT, "first"), group(IMAGE, "last"), group(TEXT, "last"))


def world() -> tuple[Dataset, tuple[str, ...]]:
    texts = tuple(f"caption {index}" for index in range(SAMPLES))
    return dataset(*(sample(index, captions=(text,)) for index, text in enumerate(texts))), texts


def trials() -> tuple[BitTrials, dict[Role, TowerChoices]]:
    towers = {IMAGE: choices(1), TEXT: choices(2)}
    data, texts = world()
    return BitTrials(GROUPS, towers, data, texts, SCALE), towers


def rows(towers: dict[Role, TowerChoices]) -> tuple[int, int]:
    image, text = towers[IMAGE].module, towers[TEXT].module
    assert isinstance(image, Tower)
    assert isinstance(text, Tower)
    return image.rows, text.rows


def test_each_layer_is_taken_from_the_tower_of_its_width_and_32_bits_are_float() -> None:
    of = choices(0)
    mixed = of.mixed({"first": 4, "second": 8, "last": FLOAT})
    assert mixed.layers == {"first": of.towers[4].layers["first"], "second": of.towers[8].layers["second"]}


def test_widths_go_to_the_layers_of_their_group_and_tower() -> None:
    found, _ = trials()
    widths = (4, 8, FLOAT, 4)
    assert found.layer_widths(IMAGE, widths) == {"first": 4, "second": 4, "last": FLOAT}
    assert found.layer_widths(TEXT, widths) == {"first": 8, "last": 4}


def test_all_in_float_is_the_module_itself() -> None:
    found, towers = trials()
    embedded = found.embeddings((FLOAT,) * 4)
    for role, values in ((IMAGE, embedded.image), (TEXT, embedded.text)):
        with torch.inference_mode():
            expected = towers[role].module(torch.from_numpy(towers[role].inputs)).numpy()
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_score_is_that_of_the_simulated_towers() -> None:
    found, towers = trials()
    data, texts = world()
    picked = {
        IMAGE: {"first": towers[IMAGE].towers[4], "second": towers[IMAGE].towers[4]},
        TEXT: {"first": towers[TEXT].towers[8], "last": towers[TEXT].towers[4]},
    }
    embedded = {}
    for role, layers in picked.items():
        tower = QuantizedTower({name: each.layers[name] for name, each in layers.items()})
        module = towers[role].module
        with torch.inference_mode(), simulated(module, tower):
            embedded[role] = module(torch.from_numpy(towers[role].inputs)).numpy()
    expected = soft_accuracy(data, Embeddings(embedded[IMAGE], embedded[TEXT], texts), SCALE)
    assert found.score((4, 8, FLOAT, 4)) == pytest.approx(expected, abs=1e-6)
    assert found.score((8, 8, FLOAT, 4)) != pytest.approx(expected, abs=1e-6)


def test_fewer_bits_move_answers_further() -> None:
    found, _ = trials()
    plain = found.embeddings((FLOAT,) * 4)
    moved = [float(np.abs(found.embeddings((bits,) * 4).image - plain.image).mean()) for bits in (4, 8)]
    assert moved[0] > 4 * moved[1] > 0


def test_a_tower_is_embedded_once_for_its_own_widths() -> None:
    found, towers = trials()
    first = found.embeddings((4, 8, 8, 8))
    assert rows(towers) == (SAMPLES, SAMPLES)
    again = found.embeddings((4, 8, 8, 8))
    assert again.image is first.image
    other = found.embeddings((4, 4, 8, 8))  # only the text tower is another
    assert rows(towers) == (SAMPLES, 2 * SAMPLES)
    assert other.image is first.image
    assert not np.array_equal(other.text, first.text)


def test_modules_are_left_as_they_were() -> None:
    found, towers = trials()
    before = {name: value.clone() for name, value in towers[IMAGE].module.state_dict().items()}
    found.score((4, 4, 4, 4))
    after = towers[IMAGE].module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
