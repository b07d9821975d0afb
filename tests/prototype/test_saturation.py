from __future__ import annotations

import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import nn

from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import (
    BLOCKS_4,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    LayerSpec,
)
from pocketvl.prototype.saturation import SAFE_WEIGHT, Saturation, saturating_layers, saturating_pairs

EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
CPU_WITHOUT_VNNI = "Haswell"  # has AVX2, and nothing later


def layer_of(
    weights: NDArray[np.int8], spec: LayerSpec = INT8_STATIC, largest: float = 1.0
) -> QuantizedLayer:
    """Weights 127 stand for 1, inputs 255 for 1, and outputs go from 0 to `largest`."""
    scale = np.full(len(weights), 1 / 127, np.float32)
    if spec.input is None:
        return QuantizedLayer(spec, weights, scale)
    return QuantizedLayer(
        spec, weights, scale, None, ActivationGrid(1 / 255, 0), ActivationGrid(largest / 255, 0)
    )


def report_of(weights: NDArray[np.int8], spec: LayerSpec = INT8_STATIC) -> Saturation:
    (report,) = saturating_layers(QuantizedComponent({"layer": layer_of(weights, spec)}))
    return report


def two_in_each_row(inputs: int) -> NDArray[np.int8]:
    """int8 [outputs, inputs]: each row has 127 at two inputs, and there is a row for any two."""
    places = list(itertools.combinations(range(inputs), 2))
    weights = np.zeros((len(places), inputs), np.int8)
    for row, both in enumerate(places):
        weights[row, list(both)] = 127
    return weights


@given(arrays(np.int8, (3, 7)))
def test_a_pair_is_named_exactly_when_some_activations_take_its_sum_out_of_16_bits(
    weights: NDArray[np.int8],
) -> None:
    padded = np.hstack([weights, np.zeros((3, 1), np.int8)]).astype(np.int64).reshape(3, -1, 2)
    # A sum is linear in both activations, so that its extremes lie where each is at one of its ends.
    sums = np.stack([padded @ np.array(ends) for ends in itertools.product((0, 255), repeat=2)])
    limits = np.iinfo(np.int16)
    leaves = ((sums > limits.max) | (sums < limits.min)).any(axis=0)
    np.testing.assert_array_equal(saturating_pairs(weights), leaves)


@given(arrays(np.int8, (4, 9), elements=st.integers(-SAFE_WEIGHT, SAFE_WEIGHT)))
def test_safe_weights_never_saturate(weights: NDArray[np.int8]) -> None:
    assert not saturating_pairs(weights).any()


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_step_beyond_the_safe_weight_two_neighbours_saturate(sign: int) -> None:
    assert saturating_pairs(np.full((1, 2), sign * (SAFE_WEIGHT + 1), np.int8)).all()
    assert not saturating_pairs(np.array([[127, -127]], np.int8)).any(), "they cancel, whatever comes in"


def test_a_layer_is_reported_with_its_share_of_pairs() -> None:
    weights = np.array([[127, 2, 1, 1, 127], [1, 127, 127, 1, 0]], np.int8)
    report = report_of(weights)
    assert report == Saturation("layer", pairs=6, saturating=1, largest_weight=127)
    assert report.possible
    assert report.share == pytest.approx(1 / 6)
    assert not report_of(weights // 2).possible


def test_a_convolution_pairs_channels_of_one_place_before_places() -> None:
    weights = np.zeros((1, 2, 1, 2), np.int8)  # [out, in, height, width]
    weights[0, :, 0, 0] = 127
    assert report_of(weights).saturating == 1
    weights = np.zeros((1, 2, 1, 2), np.int8)
    weights[0, 0, 0, :] = 127
    assert report_of(weights).saturating == 0


def test_dynamic_layers_multiply_integers_too_and_tables_do_not() -> None:
    weights = np.full((2, 4), 127, np.int8)
    assert report_of(weights, INT8_DYNAMIC).possible
    assert saturating_layers(QuantizedComponent({"table": layer_of(weights, INT8_TABLE)})) == ()
    blocks = replace(INT4_DYNAMIC, weights=BLOCKS_4)
    assert not report_of(np.full((2, 32), BLOCKS_4.highest, np.int8), blocks).possible


# What follows asks the kernels themselves, on a processor without VNNI that is emulated.


@dataclass(frozen=True)
class Case:
    module: nn.Module
    weights: NDArray[np.int8]
    shape: tuple[int, ...]
    largest: float
    expected: float
    spec: LayerSpec = INT8_STATIC


def make_cases() -> dict[str, Case]:
    pairs = two_in_each_row(12)
    rows, kernel = len(pairs), pairs.reshape(-1, 3, 2, 2)
    full = np.full((16, 64), 127, np.int8)
    return {
        "full": Case(nn.Linear(64, 16, bias=False), full, (1, 64), 64.0, 64.0),
        "linear": Case(nn.Linear(12, rows, bias=False), pairs, (1, 12), 2.0, 2.0),
        "tokens": Case(nn.Linear(12, rows, bias=False), pairs, (1, 9, 12), 2.0, 2.0),
        "dynamic": Case(nn.Linear(12, rows, bias=False), pairs, (1, 12), 2.0, 2.0, INT8_DYNAMIC),
        "conv": Case(nn.Conv2d(3, rows, 2, 2, bias=False), kernel, (1, 3, 4, 4), 2.0, 2.0),
    }


CASES = make_cases()


def write_graph(case: Case, path: Path) -> QuantizedComponent:
    """Lowers the case's layer, as any component is lowered."""
    component = QuantizedComponent({"0": layer_of(case.weights, case.spec, case.largest)})
    export_onnx(nn.Sequential(case.module).eval(), {"x": torch.zeros(case.shape)}, path)
    write_quantized_onnx(path, component, path)
    return component


# Emulation changes the instructions, and not what the system tells of the processor: that is handed in.
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from pocketvl_runtime import isa
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.manifest import (Engine, GraphSpec, Precision, TensorSpec)

folder, answers = Path(sys.argv[1]), {}
isa._CPUINFO = folder / "cpuinfo"
for flags in ("avx2", "avx512_vnni"):
    isa._CPUINFO.write_text(f"flags : {flags}")
    isa.instruction_set.cache_clear()
    for name, (went, came) in json.loads(sys.argv[2]).items():
        ends = TensorSpec("x", "float32", tuple(went)), TensorSpec("embedding", "float32", tuple(came))
        spec = GraphSpec("image_encoder", Engine.ONNX, Precision.INT8, f"{name}.onnx", ends[:1], ends[1:])
        backend = open_backend(spec, (folder / spec.file).read_bytes(), threads=1)
        answers[f"{name}/{flags}"] = backend.run({"x": np.ones(went, np.float32)})["embedding"]
np.savez(folder / "answers.npz", **answers)
"""


@dataclass(frozen=True, eq=False)
class Emulated:
    """What the runtime answers without VNNI, by case: told of it, and believing that there is VNNI."""

    components: Mapping[str, QuantizedComponent]
    exact: Mapping[str, NDArray[np.float32]]
    saturated: Mapping[str, NDArray[np.float32]]


def has_avx2(emulator: str) -> bool:
    """QEMU has it since 7.2."""
    told = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"version (\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) >= (7, 2)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    if platform.machine() != "x86_64" or EMULATOR is None or not has_avx2(EMULATOR):
        pytest.skip("needs qemu-x86_64 7.2 or later (package qemu-user) for an x86 without VNNI")
    folder = tmp_path_factory.mktemp("emulated")
    components = {name: write_graph(case, folder / f"{name}.onnx") for name, case in CASES.items()}
    shapes = {}
    for name, case in CASES.items():
        with torch.no_grad():
            shapes[name] = (case.shape, tuple(case.module(torch.zeros(case.shape)).shape))
    command = [EMULATOR, "-cpu", CPU_WITHOUT_VNNI, sys.executable, "-c", CHILD, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, json.dumps(shapes)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "answers.npz") as answers:
        exact, saturated = ({n: answers[f"{n}/{flags}"] for n in CASES} for flags in ("avx2", "avx512_vnni"))
    return Emulated(components, exact, saturated)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_vnni_the_runtime_answers_as_with_it(emulated: Emulated, name: str) -> None:
    case = CASES[name]
    np.testing.assert_allclose(emulated.exact[name], case.expected, atol=case.largest / 255)


@pytest.mark.slow
def test_without_vnni_plain_kernels_answer_half_of_what_is_right(emulated: Emulated) -> None:
    # Each pair's sum, 2 * 255 * 127 = 64770, is clamped to 32767.
    expected = CASES["full"].expected * 32767 / 64770
    np.testing.assert_allclose(emulated.saturated["full"], expected, atol=CASES["full"].largest / 255)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "full"])
def test_plain_kernels_saturate_just_the_pairs_that_are_named(emulated: Emulated, name: str) -> None:
    component = emulated.components[name].layers["0"]
    named = [report_of(row[None], component.spec).possible for row in component.weights]  # by output
    answers = emulated.saturated[name]
    channels_last = np.moveaxis(answers, 1, -1) if name == "conv" else answers
    wrong = np.abs(channels_last - CASES[name].expected) > 0.5
    assert any(named)
    assert not all(named)
    np.testing.assert_array_equal(wrong, np.broadcast_to(named, wrong.shape))
