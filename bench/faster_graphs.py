"""CLIP ViT-B/32, random weights: what each change that makes graphs faster is worth (docs/FASTER_GRAPHS.md).

Graphs are made with all of them, with none ("before") and without one of them, and each is quantized to
int8 and int8dyn. All of a precision and engine run in turns in one process: medians of paired ratios to the
graph with all changes, so that above 1 a change pays.

    python -m bench.faster_graphs --work build/bench/faster-graphs [--components image,text] [--runs 60]

The graphs stay in the work folder, so that a second call only measures. One thread is timed by its CPU time,
which other programs disturb less; several by the clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bench.clip_b32 import ROLES, Component, components
from bench.timing import Graph, machine, open_graph
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.tasks.parity import measure_parity
from pocketvl_runtime.manifest import Precision

CHANGES: Mapping[str, str] = {
    "pooled-last-layer": "pocketvl.quantize.fold._pool_early_",
    "score-scales": "pocketvl.quantize.fold._fold_score_scales_",
    "quick-gelus": "pocketvl.quantize.fold._fold_quick_gelus_",
    "few-op-norms": "pocketvl.lower.tflite.export._plain_norms",
    "no-reshapes": "pocketvl.lower.tflite.export.simplify_",
}
"""By name, the function that makes a change."""
BEFORE, AFTER = "before", "after"
PRECISIONS = (Precision.INT8, Precision.INT8DYN)
_SETTINGS = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)
_WARMUP = 2


@contextmanager
def without(names: tuple[str, ...]) -> Iterator[None]:
    """Context in which these changes are not made."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch(CHANGES[name], lambda _: nullcontext()))
        yield


def make_graphs(component: Component, folder: Path, left_out: tuple[str, ...]) -> None:
    """Write both precisions of both engines, and how near they are to torch in float."""
    if (folder / "fidelity.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    module, name = component.module, component.input_name
    with torch.inference_mode():
        expected = module(torch.from_numpy(component.unseen)).numpy()
    feeds = [row[None] for row in component.calibration]
    example = torch.from_numpy(feeds[0])
    with without(left_out):
        fold_(module, example)
        export_onnx(module, {name: example}, folder / "fp32.onnx")
        export_tflite(module, {name: example}, folder / "fp32.tflite")
    seen = calibrate(module, feeds, CalibrationSettings(Observer.MIN_MAX))
    tables, final = token_tables(module, example), final_linear(module, example)
    for precision in PRECISIONS:
        integers = quantize_component(
            module, component_spec(module, precision, tables, final), seen, _SETTINGS
        )
        write_quantized_onnx(folder / "fp32.onnx", integers, folder / f"{precision.value}.onnx")
        write_quantized_tflite(folder / "fp32.tflite", integers, folder / f"{precision.value}.tflite")
    found = {}
    for path in sorted(folder.glob("int8*.*")):
        run = open_graph(path, ROLES[component.name.split("-")[0]], 1)
        parity = measure_parity(
            expected, np.concatenate([run({name: row[None]}) for row in component.unseen])
        )
        found[path.name] = [parity.centred_cosine_median, parity.centred_cosine_min]
    (folder / "fidelity.json").write_text(json.dumps(found, indent=1))


def timed(
    graphs: Mapping[str, Graph], feed: Mapping[str, NDArray[Any]], threads: int, runs: int
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds [runs] of each graph, all in every turn, each after a run that is not counted."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in graphs}
    shuffle = np.random.default_rng(0)
    for turn in range(runs + _WARMUP):
        for index in shuffle.permutation(len(graphs)):
            name = list(graphs)[index]
            graphs[name](feed)
            begin = clock()
            graphs[name](feed)
            if turn >= _WARMUP:
                times[name].append(1e3 * (clock() - begin))
    return {name: np.array(found) for name, found in times.items()}


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--components", "names", default="image,text", show_default=True)
@click.option("--samples", default=16, show_default=True)
@click.option("--runs", default=60, show_default=True)
@click.option("--each", is_flag=True, help="Also without each change alone.")
def main(work: Path, names: str, samples: int, runs: int, each: bool) -> None:
    """Measure, print, and write results.json into the work folder."""
    kinds: dict[str, tuple[str, ...]] = {AFTER: (), BEFORE: tuple(CHANGES)}
    if each:
        kinds |= {f"without-{name}": (name,) for name in CHANGES}
    results: dict[str, Any] = {"machine": machine()}
    print(results["machine"])
    for name in names.split(","):
        for kind, left_out in kinds.items():
            (component,) = components([f"{name}-plain"], samples, samples)
            make_graphs(component, work / name / kind, left_out)
        results[name] = {k: json.loads((work / name / k / "fidelity.json").read_text()) for k in kinds}
        feed = {component.input_name: component.unseen[:1]}
        for threads in (1, 2):
            for file in sorted(results[name][AFTER]):
                graphs = {kind: open_graph(work / name / kind / file, ROLES[name], threads) for kind in kinds}
                times = timed(graphs, feed, threads, runs)
                for kind, own in times.items():
                    row = [float(np.percentile(own, 10)), float(np.median(own / times[AFTER]))]
                    results[f"{name} {threads} {file} {kind}"] = row
                    median, least = results[name][kind][file]
                    print(
                        f"{name:<6}{threads} threads {file:<15}{kind:<28} p10 {row[0]:7.2f} ms, "
                        f"{row[1]:.3f} of after; centred cosine {median:.5f}, least {least:.5f}",
                        flush=True,
                    )
    (work / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
