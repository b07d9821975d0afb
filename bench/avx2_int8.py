"""ONNX Runtime's int8 on x86 before VNNI: what its exact mode costs, and what 7-bit weights would cost.

    python -m bench.avx2_int8 kernels GRAPH.onnx [--runs 60] [--threads 2]
    python -m bench.avx2_int8 answers GRAPH.onnx --inputs ROWS.npy --out ANSWERS.npz
    python -m bench.avx2_int8 weights CHECKPOINT --calibration DATASET --samples DATASET [--dynamic PATTERN]

`kernels` times one static int8 graph with the exact mode on and off, in turns, and compares the answers;
`answers` writes them for inputs of your own. A processor without VNNI can be emulated where qemu-user is
installed, for the answers, not for the times:

    qemu-x86_64 -cpu Haswell PYTHON -m bench.avx2_int8 kernels GRAPH.onnx --runs 2 --threads 1

`weights` proves from the integers which layers can saturate, and compares 8-bit weights with 7-bit weights,
in all layers and in just those, against the float components on samples that calibration has not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import click
import numpy as np
from numpy.typing import NDArray

from pocketvl_runtime.isa import cpu_name, instruction_set

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.integers import QuantizedComponent
    from pocketvl.network.specification import ComponentSpec

EXACT_MODE = "session.x64quantprecision"
Array = NDArray[Any]


@click.group()
def main() -> None:
    """What int8 does on x86 without VNNI."""


def session(model: bytes, exact: bool, threads: int) -> Any:
    """An ONNX Runtime session with its exact mode on or off, whatever the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # the other one is timed next
    options.add_session_config_entry(EXACT_MODE, "1" if exact else "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def saturates() -> bool:
    """Whether this processor's plain kernels answer wrong, asked of the kernels themselves.

    A product of 64 activations of 1 with 64 weights of 1, each at the top of its grid: 64 is right.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "step": np.float32(1 / 255),
        "zero": np.uint8(0),
        "weights": np.full((64, 16), 127, np.int8),
        "weight_step": np.float32(1 / 127),
        "weight_zero": np.int8(0),
        "answer_step": np.float32(64 / 255),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_step", "weight_zero"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "answer_step", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "answer_step", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    answer = session(model.SerializeToString(), False, 1).run(None, {"x": np.ones((1, 64), np.float32)})[0]
    return bool(np.abs(answer - 64).max() > 1)


def random_feeds(opened: Any, count: int) -> list[dict[str, Array]]:
    """Random inputs of a graph: pixels, ids within 0..255, or floats."""
    random = np.random.default_rng(0)
    dtypes = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(float)": np.float32}
    return [
        {
            each.name: random.integers(0, 256, each.shape).astype(dtypes[each.type])
            for each in opened.get_inputs()
        }
        for _ in range(count)
    ]


def timed(opened: Any, feed: Mapping[str, Array]) -> float:
    """Milliseconds of one run of a session."""
    start = time.perf_counter()
    opened.run(None, feed)
    return (time.perf_counter() - start) * 1e3


@main.command()
@click.argument("graph", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runs", default=60, show_default=True)
@click.option("--threads", default=2, show_default=True)
def kernels(graph: Path, runs: int, threads: int) -> None:
    """Time a static int8 GRAPH with the exact mode off and on, and compare the answers."""
    wrong = saturates()
    print(f"{cpu_name()}, {instruction_set()} as the system tells it, {threads} threads")
    print(f"plain int8 kernels saturate here: {'yes' if wrong else 'no, there is nothing to choose'}")
    model = graph.read_bytes()
    sessions = {exact: session(model, exact, threads) for exact in (False, True)}
    feeds = random_feeds(sessions[True], 8)
    apart = 0.0
    for feed in feeds:
        plain, exact = (sessions[each].run(None, feed)[0] for each in (False, True))
        apart = max(apart, float(np.abs(plain - exact).max()))
    taken: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(runs):
        for each in (False, True) if turn % 2 else (True, False):
            taken[each].append(timed(sessions[each], feeds[turn % len(feeds)]))
    for each, times in taken.items():
        median, tenth = np.median(times), np.percentile(times, 10)
        print(f"exact mode {'on ' if each else 'off'}  median {median:8.2f} ms  p10 {tenth:8.2f} ms")
    print(f"largest difference between the two on {len(feeds)} random inputs: {apart:.6g}")


@main.command()
@click.argument("graph", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--inputs", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def answers(graph: Path, inputs: Path, out: Path) -> None:
    """Write what GRAPH answers to the rows of a .npy file: arrays "plain" and "exact" of a .npz file."""
    rows, found = np.load(inputs), []
    for exact in (False, True):
        opened = session(graph.read_bytes(), exact, 1)
        feed = opened.get_inputs()[0].name
        found.append(np.concatenate([opened.run(None, {feed: row[None]})[0] for row in rows]))
    np.savez(out, plain=found[0], exact=found[1])


@dataclass(frozen=True, eq=False)
class Component:
    """A float component with its LayerNorms folded, what calibrates it, and what it is judged on."""

    name: str
    module: nn.Module
    example: torch.Tensor
    calibration: Array
    samples: Array


def batches(rows: Array) -> Iterator[Array]:
    """32 rows at a time."""
    return (rows[start : start + 32] for start in range(0, len(rows), 32))


def inputs_of(source: Checkpoint, folder: Path, count: int) -> tuple[Array, Array]:
    """Pixels and ids of a dataset's first samples."""
    from pocketvl.data.dataset import Dataset
    from pocketvl_runtime.image import open_image, preprocess
    from pocketvl_runtime.text import Tokenizer

    samples = Dataset.open(folder).samples[:count]
    texts = list(dict.fromkeys(text for sample in samples for text in (*sample.captions, *sample.negatives)))
    pixels = np.stack([preprocess(open_image(sample.image), source.preprocess) for sample in samples])
    return pixels, Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts[:1024]).ids


def components_of(checkpoint: Path, calibration: Path, samples: Path, count: int) -> Iterator[Component]:
    """Both components of a checkpoint."""
    import torch

    from pocketvl.families import open_checkpoint
    from pocketvl.quantize.fold import fold_

    source = open_checkpoint(checkpoint)
    seen, unseen = inputs_of(source, calibration, 512), inputs_of(source, samples, count)
    modules = {
        "image": source.component("image_encoder").module,
        "text": source.component("text_encoder").module,
    }
    for (name, module), rows, judged in zip(modules.items(), seen, unseen, strict=True):
        example = torch.from_numpy(rows[:1])
        fold_(module, example)
        yield Component(name, module, example, rows, judged)


def in_7_bits(spec: ComponentSpec, names: frozenset[str]) -> ComponentSpec:
    """The specification, with the weights of the named layers in -63..63."""
    layers = {
        name: replace(layer, weights=replace(layer.weights, bits=7)) if name in names else layer
        for name, layer in spec.layers.items()
    }
    return replace(spec, layers=layers)


def embedded(module: nn.Module, rows: Array) -> NDArray[np.float32]:
    """What a module makes of some inputs."""
    import torch

    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(batch)) for batch in batches(rows)]).numpy()


def with_dynamic(spec: ComponentSpec, component: Component, patterns: tuple[str, ...]) -> ComponentSpec:
    """The specification, with linears dynamic whose "<component>:<layer>" fits a pattern."""
    from torch import nn

    from pocketvl.network.specification import INT8_DYNAMIC

    fits = {
        name: INT8_DYNAMIC
        for name in spec.layers
        if isinstance(component.module.get_submodule(name), nn.Linear)
        and any(fnmatch(f"{component.name}:{name}", pattern) for pattern in patterns)
    }
    return replace(spec, layers={**spec.layers, **fits})


def quantized_components(component: Component, dynamic: tuple[str, ...]) -> Mapping[str, QuantizedComponent]:
    """Int8 with 8-bit weights, with 7-bit weights, and with 7 bits in layers that can saturate."""
    from pocketvl.observe.calibrate import calibrate
    from pocketvl.observe.settings import CalibrationSettings
    from pocketvl.observe.structure import token_tables
    from pocketvl.prototype.saturation import saturating_layers
    from pocketvl.quantize.component import component_spec, quantize_component
    from pocketvl_runtime.manifest import Precision

    spec = component_spec(component.module, Precision.INT8, token_tables(component.module, component.example))
    spec = with_dynamic(spec, component, dynamic)
    settings = CalibrationSettings(second_moments=True)
    seen = calibrate(component.module, list(batches(component.calibration)), settings)
    plain = quantize_component(component.module, spec, seen)
    reports = saturating_layers(plain)
    every = in_7_bits(spec, frozenset(report.name for report in reports))
    some = in_7_bits(spec, frozenset(report.name for report in reports if report.possible))
    return {
        "8 bits": plain,
        "7 bits": quantize_component(component.module, every, seen),
        "7 bits where it can saturate": quantize_component(component.module, some, seen),
    }


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--calibration", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--samples", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=128, show_default=True, help="Pictures of the samples, and their texts.")
@click.option(
    "--dynamic", multiple=True, help='Linears that are dynamic, as "image:*.fc2"; the rest are static.'
)
def weights(checkpoint: Path, calibration: Path, samples: Path, count: int, dynamic: tuple[str, ...]) -> None:
    """Which layers of a CHECKPOINT can saturate, and what 7-bit weights would cost."""
    from pocketvl.prototype.saturation import saturating_layers
    from pocketvl.quantize.simulate import simulated
    from pocketvl.tasks.parity import measure_parity

    for component in components_of(checkpoint, calibration, samples, count):
        reference = embedded(component.module, component.samples)
        for name, quantized in quantized_components(component, dynamic).items():
            reports = saturating_layers(quantized)
            with simulated(component.module, quantized):
                parity = measure_parity(reference, embedded(component.module, component.samples))
            saturating, pairs = (sum(getattr(r, n) for r in reports) for n in ("saturating", "pairs"))
            print(
                f"{component.name:5}  {name:29} "
                f"{sum(each.possible for each in reports)} of {len(reports)} layers"
                f" can saturate, {saturating / pairs:.2%} of pairs; centred cosine"
                f" {parity.centred_cosine_median:.5f}, least {parity.centred_cosine_min:.5f} (n={parity.n})",
                flush=True,
            )


if __name__ == "__main__":
    main()
