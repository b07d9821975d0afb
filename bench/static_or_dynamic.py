"""What static int8 costs beside dynamic int8, by kind of layer, and where it comes from.

First linears alone, 24 of them with ReLUs between: a static chain stays in integers from end to end, so that
whatever it takes more than a dynamic one, which puts its input on a grid anew in every layer, lies in the
engine's own product of integers. Then the components of CLIP ViT-B/32, static but for one kind of layer.

    python -m bench.static_or_dynamic --work build/bench/clip-b32 [--components image,text] [--runs 60]

The float graphs in the work folder are those of clip_b32.py, which has to run before. Weights are rounded to
nearest here: times do not depend on them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.clip_b32 import ROLES, components
from bench.timing import interleaved, machine, open_graph
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.network.integers import QuantizedComponent
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl_runtime.manifest import Precision

KINDS = {
    "queries, keys, values": ("q_proj", "k_proj", "v_proj"),
    "out_proj": ("out_proj",),
    "fc1": ("fc1",),
    "fc2": ("fc2",),
}
WRITE = {"onnx": write_quantized_onnx, "tflite": write_quantized_tflite}
ROWS, INNER, OUTER, DEPTH = 50, 768, 3072, 24


class Chain(nn.Module):
    """Linears between two widths, with a ReLU after each."""

    def __init__(self) -> None:
        super().__init__()
        widths = [OUTER if index % 2 == 0 else INNER for index in range(DEPTH + 1)]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.linears:
            x = torch.relu(linear(x))
        return x


def both_ways(
    module: nn.Module, feeds: list[NDArray[Any]], example: torch.Tensor
) -> tuple[QuantizedComponent, QuantizedComponent]:
    """A module in static int8 and in dynamic int8."""
    seen = calibrate(module, feeds, CalibrationSettings(Observer.MIN_MAX))
    plain, tables = QuantizeSettings(False, Rounding.NEAREST, False), token_tables(module, example)
    final = final_linear(module, example)
    static = quantize_component(module, component_spec(module, Precision.INT8, tables, final), seen, plain)
    return static, quantize_component(module, component_spec(module, Precision.INT8DYN, tables), seen, plain)


def measured(
    paths: Mapping[str, Path], role: str, feed: Mapping[str, NDArray[Any]], threads: int, runs: int
) -> dict[str, float]:
    """Of every graph the part of the dynamic one's time that it takes: medians of paired ratios."""
    times = interleaved({name: open_graph(path, role, threads) for name, path in paths.items()}, feed, runs)
    return {name: float(np.median(each / times["dynamic"])) for name, each in times.items()}


def time_chain(kind: str, folder: Path, threads: int, runs: int) -> dict[str, float]:
    """Linears alone, in one engine."""
    torch.manual_seed(0)
    chain, example = Chain().eval().requires_grad_(False), torch.randn(ROWS, OUTER)
    source = folder / f"chain.{kind}"
    (export_onnx if kind == "onnx" else export_tflite)(chain, {"x": example}, source)
    paths = {}
    components = both_ways(chain, [example.numpy()], example)
    for name, component in zip(("static", "dynamic"), components, strict=True):
        paths[name] = folder / f"chain-{name}.{kind}"
        WRITE[kind](source, component, paths[name])
    return measured(paths, "image_encoder", {"x": example.numpy()}, threads, runs)


def write_kinds(
    kind: str, source: Path, components: tuple[QuantizedComponent, QuantizedComponent], folder: Path
) -> dict[str, Path]:
    """A component's graphs: static, dynamic, and static but for one kind of layer."""
    static, dynamic = components
    mixed = {"static": static, "dynamic": dynamic}
    for name, ends in KINDS.items():
        layers = {
            key: dynamic.layers[key] if key.endswith(ends) else layer for key, layer in static.layers.items()
        }
        mixed[f"dynamic {name}"] = QuantizedComponent(layers)
    paths = {}
    for index, (name, component) in enumerate(mixed.items()):
        paths[name] = folder / f"{index}.{kind}"
        WRITE[kind](source, component, paths[name])
    return paths


@click.command()
@click.option("--work", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--components", "names", default="image,text", show_default=True)
@click.option("--runs", default=60, show_default=True)
def main(work: Path, names: str, runs: int) -> None:
    """Measure, print, and write static_or_dynamic.json into the work folder."""
    results: dict[str, Any] = {"machine": machine()}
    print(results["machine"])

    def print_times(what: str, kind: str, threads: int, found: dict[str, float]) -> None:
        results[f"{what}, {kind}, {threads} threads"] = found
        print(f"{what}, {kind}, {threads} threads; the dynamic graph takes 1", flush=True)
        for name, ratio in found.items():
            print(f"  {name:<32} {ratio:.3f}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        for kind in WRITE:
            for threads in (1, 2):
                print_times("linears alone", kind, threads, time_chain(kind, Path(scratch), threads, runs))
        for component in components(names.split(","), 4, 1):
            if component.name.endswith("-plain"):
                example = torch.from_numpy(component.calibration[:1])
                fold_(component.module, example)
                both = both_ways(component.module, [row[None] for row in component.calibration], example)
                role, feed = ROLES[component.name.split("-")[0]], {component.input_name: component.unseen[:1]}
                for kind in WRITE:
                    source = work / component.name / f"folded.{kind}"
                    paths = write_kinds(kind, source, both, Path(scratch))
                    for threads in (1, 2):
                        print_times(component.name, kind, threads, measured(paths, role, feed, threads, runs))
    (work / "static_or_dynamic.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
