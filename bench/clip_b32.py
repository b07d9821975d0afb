"""CLIP ViT-B/32 from its configuration, random weights: what static int8 costs and what it is worth.

Fidelity: both components, plain and with eight outlier channels at 20x, against the float module, in both
engines, on samples that calibration did not see. Latency: against what the engines' own tools make of the
same float graphs, all of them timed in turns in one process, as medians of paired ratios.

    python -m bench.clip_b32 --work build/bench/clip-b32 [--components image,text-outliers] [--runs 60]

The graphs stay in the work folder, so that a second call only measures.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPConfig, CLIPModel

from bench.timing import interleaved, machine, open_graph
from pocketvl.families.clip import ClipImageEncoder, ClipTextEncoder
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.equalize import equalize_, equalized_calibration
from pocketvl.quantize.fold import fold_, norm_readers
from pocketvl.quantize.settings import QuantizeSettings
from pocketvl.tabletop.draw import draw_scene
from pocketvl.tabletop.scene import sample_scene, scene_rng
from pocketvl.tasks.parity import measure_parity
from pocketvl_runtime.image import open_image
from pocketvl_runtime.manifest import ImageProcessor, Normalization, Precision, ResizeMode

INPUTS = {"image": "pixels", "text": "ids"}
ROLES = {"image": "image_encoder", "text": "text_encoder"}
GRAPHS = (
    "static.onnx",
    "static.tflite",
    "ort-dynamic.onnx",
    "ort-static.onnx",
    "aeq-dynamic.tflite",
    "aeq-static.tflite",
)
OUTLIERS, FACTOR = 8, 20.0
EOS = 49407


@dataclass(frozen=True)
class Component:
    """One component, plain or with outliers, and what it is shown."""

    name: str
    module: nn.Module
    calibration: NDArray[Any]
    unseen: NDArray[Any]

    @property
    def input_name(self) -> str:
        return INPUTS[self.name.split("-")[0]]


def clip(seed: int, outliers: bool) -> CLIPModel:
    """ViT-B/32 with random weights, biases that are not 0, and, if asked, outlier channels."""
    torch.manual_seed(seed)
    model: CLIPModel = CLIPModel._from_config(  # type: ignore[no-untyped-call]
        CLIPConfig(), attn_implementation="eager", dtype=torch.float32
    )
    randomize_(model, seed, outliers)
    return model


def randomize_(model: nn.Module, seed: int, outliers: bool) -> None:
    """Draw biases and LayerNorms, plant outlier channels if asked, and freeze the model in eval mode."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if name.endswith("bias"):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
        if outliers:
            for name, norm in model.named_modules():
                if isinstance(norm, nn.LayerNorm) and "encoder.layers" in name:
                    channels = torch.randperm(norm.weight.numel(), generator=generator)[:OUTLIERS]
                    norm.weight[channels] *= FACTOR
                    norm.bias[channels] *= FACTOR
    model.requires_grad_(False)
    model.eval()


def images(count: int, seed: int) -> NDArray[np.uint8]:
    """Tabletop scenes of 224 x 224, uint8 [count, 224, 224, 3]."""
    found = []
    for index in range(count):
        rng = scene_rng(seed, index)
        content, _ = draw_scene(sample_scene(rng), rng, 224)
        found.append(np.asarray(open_image(content)))
    return np.stack(found)


def texts(count: int, seed: int) -> NDArray[np.int32]:
    """Random tokens of 5 to 40 words between CLIP's first and last token, int32 [count, 77]."""
    chance = np.random.default_rng(seed)
    ids = np.full((count, 77), EOS, np.int32)
    for row in ids:
        length = int(chance.integers(5, 41))
        row[0] = EOS - 1
        row[1 : 1 + length] = chance.integers(0, EOS - 1, length)
    return ids


def components(names: list[str], calibration: int, unseen: int) -> list[Component]:
    """The components that were asked for, plain and with outliers."""
    normalization = Normalization(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1 / 255
    )
    preprocess = ImageProcessor.bicubic(ResizeMode.SHORTEST_EDGE, (224, 224), (224, 224), normalization)
    found = []
    shown: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
        "image": (images(calibration, 1), images(unseen, 2)),
        "text": (texts(calibration, 1), texts(unseen, 2)),
    }
    for kind in ("plain", "outliers"):
        model = clip(0, kind == "outliers")
        modules: dict[str, nn.Module] = {
            "image": ClipImageEncoder(model, preprocess),
            "text": ClipTextEncoder(model, 77),
        }
        found += [
            Component(f"{name}-{kind}", modules[name].eval(), *shown[name])
            for name in INPUTS
            if name in names or f"{name}-{kind}" in names
        ]
    return found


def make_graphs(component: Component, folder: Path, own_tools: bool = True) -> dict[str, Any]:
    """Write every graph of a component that is not there yet; return what quantization did.

    Args:
        component: its module is folded and equalized in place.
        folder: where to write.
        own_tools: also what the engines' own tools make of the float graphs.
    """
    document = folder / "quantized.json"
    if document.exists():
        found: dict[str, Any] = json.loads(document.read_text())
        return found
    folder.mkdir(parents=True, exist_ok=True)
    module, feeds = component.module, [row[None] for row in component.calibration]
    example = torch.from_numpy(feeds[0])
    begin = time.perf_counter()
    fold_(module, example)
    plain_onnx, plain_tflite = folder / "folded.onnx", folder / "folded.tflite"
    export_onnx(module, {component.input_name: example}, plain_onnx)
    export_tflite(module, {component.input_name: example}, plain_tflite)
    lowered = time.perf_counter()
    readers = {name for each in norm_readers(module, example) for name in each.linears}
    seen = calibrate(module, feeds, CalibrationSettings(second_moments=True), kept=readers)
    equalized = equalize_(module, example, seen)
    moved = [each for each in equalized if each.strength is not None]
    onnx, tflite = plain_onnx, plain_tflite
    if moved:
        onnx, tflite = folder / "equalized.onnx", folder / "equalized.tflite"
        export_onnx(module, {component.input_name: example}, onnx)
        export_tflite(module, {component.input_name: example}, tflite)
    quantizing = time.perf_counter()
    seen = equalized_calibration(seen, equalized)
    integers = quantize_component(
        module,
        component_spec(module, Precision.INT8, token_tables(module, example), final_linear(module, example)),
        seen,
        QuantizeSettings(),
    )
    done = time.perf_counter()
    write_quantized_onnx(onnx, integers, folder / "static.onnx")
    write_quantized_tflite(tflite, integers, folder / "static.tflite")
    if own_tools:
        _own_tools(plain_onnx, plain_tflite, component, folder)
    found = {
        "equalized": {each.norm: each.strength for each in moved},
        "lowering_s": round(lowered - begin, 1),
        "quantizing_s": round(done - quantizing, 1),
    }
    document.write_text(json.dumps(found, indent=1))
    return found


def _own_tools(onnx: Path, tflite: Path, component: Component, folder: Path) -> None:
    """The same float graphs, quantized by the engines' own tools."""
    from ai_edge_quantizer import qtyping, quantizer
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(component.calibration[:32])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            row = next(self._rows, None)
            return None if row is None else {component.input_name: row[None]}

    layers = ["MatMul", "Gemm", "Conv"]
    quantize_dynamic(
        onnx, folder / "ort-dynamic.onnx", op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    quantize_static(
        onnx, folder / "ort-static.onnx", Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=layers,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    kinds = ("FULLY_CONNECTED", "CONV_2D")
    for name in ("aeq-dynamic", "aeq-static"):
        tool = quantizer.Quantizer(str(tflite))
        statistics = None
        for kind in kinds:
            op = qtyping.TFLOperationName(kind)
            if name == "aeq-dynamic":
                tool.add_dynamic_config(".*", op, num_bits=8)
            else:
                tool.add_static_config(".*", op, activation_num_bits=8, weight_num_bits=8)
        if name == "aeq-static":
            rows = [{component.input_name: row[None]} for row in component.calibration[:32]]
            statistics = tool.calibrate({"serving_default": rows})
        (folder / f"{name}.tflite").write_bytes(bytes(tool.quantize(statistics).quantized_model))


def fidelity(component: Component, folder: Path) -> dict[str, dict[str, float]]:
    """Mean-centred cosines of the int8 graphs to the float module, and to each other."""
    with torch.inference_mode():
        rows = [
            component.module(torch.from_numpy(component.unseen[k : k + 16]))
            for k in range(0, len(component.unseen), 16)
        ]
    expected = torch.cat(rows).numpy()
    role, found = ROLES[component.name.split("-")[0]], {}
    answers = {}
    for name in GRAPHS:
        run = open_graph(folder / name, role, 2)
        answers[name] = np.concatenate([run({component.input_name: row[None]}) for row in component.unseen])
        parity = measure_parity(expected, answers[name])
        found[name] = {
            "centred_min": parity.centred_cosine_min,
            "centred_median": parity.centred_cosine_median,
        }
    both = measure_parity(answers["static.onnx"], answers["static.tflite"])
    found["onnx against tflite"] = {
        "centred_min": both.centred_cosine_min,
        "centred_median": both.centred_cosine_median,
    }
    return found


def latency(component: Component, folder: Path, threads: int, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of every graph, and the share of it that static int8 takes: medians of paired ratios."""
    role = ROLES[component.name.split("-")[0]]
    names = sorted(
        p.name for p in folder.iterdir() if p.suffix in (".onnx", ".tflite") and "equalized" not in p.name
    )
    running = {name: open_graph(folder / name, role, threads) for name in names}
    times = interleaved(running, {component.input_name: component.unseen[:1]}, runs)
    found = {}
    for name in names:
        own, other = times["static" + Path(name).suffix], times[name]
        found[name] = {
            "median_ms": float(np.median(other)),
            "p10_ms": float(np.percentile(other, 10)),
            "static_takes": float(np.median(own / other)),
        }
    return found


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--components", "names", default="image,text", show_default=True)
@click.option("--calibration-samples", default=128, show_default=True)
@click.option("--fidelity-samples", default=256, show_default=True)
@click.option("--runs", default=60, show_default=True)
def main(work: Path, names: str, calibration_samples: int, fidelity_samples: int, runs: int) -> None:
    """Measure, print, and write results.json into the work folder."""
    results: dict[str, Any] = {"machine": machine()}
    print(results["machine"])
    for component in components(names.split(","), calibration_samples, fidelity_samples):
        folder = work / component.name
        results[component.name] = {"quantized": make_graphs(component, folder)}
        print(f"\n{component.name}: {results[component.name]['quantized']}", flush=True)
        results[component.name]["fidelity"] = fidelity(component, folder)
        for name, row in results[component.name]["fidelity"].items():
            print(f"  {name:<22} centred cosine {row['centred_median']:.5f}, least {row['centred_min']:.5f}")
        for threads in (1, 2):
            timed = results[component.name][f"latency_{threads}"] = latency(component, folder, threads, runs)
            for name, row in timed.items():
                print(
                    f"  {threads} threads {name:<20} {row['median_ms']:7.2f} ms (p10 {row['p10_ms']:.2f}); "
                    f"static int8 takes {row['static_takes']:.3f} of it",
                    flush=True,
                )
        (work / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
