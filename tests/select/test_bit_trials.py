"""A choice of bits answers as its simulated components do, and none is run twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.data.dataset import Dataset
from pocketvl.families.base import Component
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.specification import ComponentSpec, Granularity, GridSpec, LayerSpec, Mode, Scheme
from pocketvl.observe.calibrate import Calibration
from pocketvl.quantize.component import quantize_component
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.quantize.simulate import simulated
from pocketvl.select.bit_trials import FLOAT, BitTrials, ComponentChoices
from pocketvl.select.search import Group
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.contrastive_metrics import Embeddings
from pocketvl.tasks.contrastive_score import soft_accuracy
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.torch_runner import TorchRunner
from tests.evaluate.worlds import dataset, sample
from tests.tasks.tiny import contract

SAMPLES, WIDTH, SCALE = 130, 10, 8.0
LAYERS = ("first", "second", "last")
IMAGE, TEXT = "image_encoder", "text_encoder"
NEAREST = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


class Linears(nn.Module):
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


@dataclass(frozen=True, eq=False)
class Known:
    """A component, and what it is shown."""

    module: Linears
    choices: ComponentChoices
    inputs: np.ndarray


def known(component: str, seed: int) -> Known:
    module, components = Linears(seed), {}
    module.eval()
    for bits in (4, 8):
        grid = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
        spec = ComponentSpec(dict.fromkeys(LAYERS, LayerSpec(Mode.DYNAMIC, grid)))
        components[bits] = quantize_component(module, spec, Calibration({}), NEAREST)
    inputs = np.random.default_rng(seed).normal(size=(SAMPLES, WIDTH)).astype(np.float32)
    port = next(iter(contract().components[component].inputs)).name
    feed = Feed(component, SAMPLES, lambda start, stop: {port: inputs[start:stop]})
    return Known(module, ComponentChoices(components, feed), inputs)


def group(component: str, *layers: str) -> Group:
    return Group(component, layers, (4, 8, FLOAT), {4: 1, 8: 2, FLOAT: 8}, {4: 0.1, 8: 0.01, FLOAT: 0.0})


GROUPS = (group(IMAGE, "first", "second"), group(TEXT, "first"), group(IMAGE, "last"), group(TEXT, "last"))


def world() -> Dataset:
    return dataset(*(sample(index, captions=(f"caption {index}",)) for index in range(SAMPLES)))


def trials() -> tuple[BitTrials, dict[str, Known]]:
    components = {name: known(name, seed) for name, seed in ((IMAGE, 1), (TEXT, 2))}
    ports = contract().components
    modules = {
        name: Component(name, each.module, ports[name].inputs, ports[name].outputs)
        for name, each in components.items()
    }
    runner = TorchRunner(modules, Encoder.of_contract(contract()), batch=100)
    chosen = {name: each.choices for name, each in components.items()}
    return BitTrials(
        GROUPS, chosen, runner, ContrastiveTask(f"{IMAGE}.embedding", f"{TEXT}.embedding", SCALE), world()
    ), components


def rows(components: dict[str, Known]) -> tuple[int, int]:
    return components[IMAGE].module.rows, components[TEXT].module.rows


def test_each_layer_is_taken_from_the_component_of_its_width_and_32_bits_are_float() -> None:
    of = known(IMAGE, 0).choices
    mixed = of.mixed({"first": 4, "second": 8, "last": FLOAT})
    assert mixed.layers == {
        "first": of.quantized[4].layers["first"],
        "second": of.quantized[8].layers["second"],
    }


def test_widths_go_to_the_layers_of_their_group_and_component() -> None:
    found, _ = trials()
    widths = (4, 8, FLOAT, 4)
    assert found.layer_widths(IMAGE, widths) == {"first": 4, "second": 4, "last": FLOAT}
    assert found.layer_widths(TEXT, widths) == {"first": 8, "last": 4}


def test_all_in_float_is_the_module_itself() -> None:
    found, components = trials()
    outputs = found.outputs((FLOAT,) * 4)
    assert outputs.texts == tuple(f"caption {index}" for index in range(SAMPLES))
    for name, each in components.items():
        with torch.inference_mode():
            expected = each.module(torch.from_numpy(each.inputs)).numpy()
        np.testing.assert_allclose(outputs[f"{name}.embedding"], expected, atol=1e-6)


def test_a_score_is_that_of_the_simulated_components() -> None:
    found, components = trials()
    image, text = components[IMAGE].choices.quantized, components[TEXT].choices.quantized
    picked = {
        IMAGE: {"first": image[4], "second": image[4]},
        TEXT: {"first": text[8], "last": text[4]},
    }
    rows = {}
    for name, layers in picked.items():
        component = QuantizedComponent({layer: each.layers[layer] for layer, each in layers.items()})
        module = components[name].module
        with torch.inference_mode(), simulated(module, component):
            rows[name] = module(torch.from_numpy(components[name].inputs)).numpy()
    texts = tuple(f"caption {index}" for index in range(SAMPLES))
    expected = soft_accuracy(world(), Embeddings(rows[IMAGE], rows[TEXT], texts), SCALE)
    assert found.score((4, 8, FLOAT, 4)) == pytest.approx(expected, abs=1e-6)
    assert found.score((8, 8, FLOAT, 4)) != pytest.approx(expected, abs=1e-6)


def test_fewer_bits_move_answers_further() -> None:
    found, _ = trials()
    port = f"{IMAGE}.embedding"
    plain = found.outputs((FLOAT,) * 4)[port]
    moved = [float(np.abs(found.outputs((bits,) * 4)[port] - plain).mean()) for bits in (4, 8)]
    assert moved[0] > 4 * moved[1] > 0


def test_a_component_is_run_once_for_its_own_widths() -> None:
    found, components = trials()
    image, text = f"{IMAGE}.embedding", f"{TEXT}.embedding"
    first = found.outputs((4, 8, 8, 8))
    assert rows(components) == (SAMPLES, SAMPLES)
    again = found.outputs((4, 8, 8, 8))
    assert again[image] is first[image]
    other = found.outputs((4, 4, 8, 8))  # only the text encoder is another
    assert rows(components) == (SAMPLES, 2 * SAMPLES)
    assert other[image] is first[image]
    assert not np.array_equal(other[text], first[text])


def test_modules_are_left_as_they_were() -> None:
    found, components = trials()
    module = components[IMAGE].module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found.score((4, 4, 4, 4))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
