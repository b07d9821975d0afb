"""Write inputs of a bundle's graphs and what engines in Python give, to test the Android engines.

    python -m tests.android.write_arrays BUNDLE OUT --onnx-python PYTHON --tflite-python PYTHON

Both PYTHONs have the engines in the versions of the Java packages; android_demo/android.mk makes them. OUT
gets arrays.json, which lists graphs and cases, and arrays.bin, where their values lie, little-endian and
row-major, at the offsets that it names.
`mvn verify -Dpocketvl.arrays=OUT` reads them; several OUTs have a ":" between.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import GoldenImage, GoldenText
from pocketvl_runtime.manifest import Engine, GraphSpec, PortKind, TensorSpec, TextProcessor
from pocketvl_runtime.text import Tokenizer

HERE = Path(__file__).parent
Arrays = dict[str, NDArray[Any]]
Made = dict[str, list[dict[PortKind, NDArray[Any]]]]


def main() -> None:
    """Writes the cases of one bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--onnx-python", required=True, help="one that has onnxruntime")
    parser.add_argument("--tflite-python", required=True, help="one that has tensorflow-cpu")
    parser.add_argument("--count", type=int, default=40, help="cases of each graph")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pythons = {Engine.ONNX: given.onnx_python, Engine.TFLITE: given.tflite_python}
    bundle = Bundle.open(given.bundle)
    made = processed(bundle, given.count, np.random.default_rng(given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    values = bytearray()
    graphs: list[dict[str, Any]] = []
    for engine, python in pythons.items():
        wanted = [
            (variant, graph)
            for variant in bundle.manifest.variants
            for graph in bundle.graphs(variant)
            if graph.engine is engine
        ]
        inputs = [component_inputs(bundle, graph, made, given.count) for _, graph in wanted]
        found = computed(bundle, [graph for _, graph in wanted], inputs, python)
        for (variant, graph), arrays, (version, outputs) in zip(wanted, inputs, found, strict=True):
            graphs.append(described(variant, graph, version, arrays, outputs, values))
    (given.out / "arrays.bin").write_bytes(values)
    listing = {"bundle": str(given.bundle.resolve()), "cases": given.count, "graphs": graphs}
    (given.out / "arrays.json").write_text(json.dumps(listing, indent=1) + "\n")


def processed(bundle: Bundle, count: int, random: np.random.Generator) -> Made:
    """What processors make of the golden inputs, then noise where pictures run out."""
    made: Made = {}
    for name, given in bundle.golden().inputs.items():
        processor = bundle.manifest.processors[name]
        made[name] = []
        for each in given:
            if isinstance(each, GoldenImage):
                pixels = np.asarray(Image.open(bundle.file(each.pixels)).convert("RGB"))
                made[name].append({PortKind.PIXELS: pixels[None]})
            elif isinstance(each, GoldenText) and isinstance(processor, TextProcessor):
                encoding = Tokenizer(bundle.read(processor.file), processor).encode([each.text])
                made[name].append(
                    {PortKind.TOKEN_IDS: encoding.ids[:1], PortKind.ATTENTION_MASK: encoding.mask[:1]}
                )
        first = made[name][0]
        while PortKind.PIXELS in first and len(made[name]) < count:
            noise = random.integers(0, 256, first[PortKind.PIXELS].shape, dtype=np.uint8)
            made[name].append({PortKind.PIXELS: noise})
    return made


def component_inputs(bundle: Bundle, graph: GraphSpec, made: Made, count: int) -> Arrays:
    """The inputs of a component, one behind the other: input -> [count, ...]."""
    inputs: Arrays = {}
    specs = {spec.name: spec for spec in graph.inputs}
    for port in bundle.manifest.graphs[graph.component].inputs:
        features = made[str(port.source)]
        dtype = specs[port.name].dtype
        cases = [features[case % len(features)][port.kind].astype(dtype) for case in range(count)]
        inputs[port.name] = np.stack(cases)
    return inputs


def computed(
    bundle: Bundle, graphs: list[GraphSpec], inputs: list[Arrays], python: str
) -> list[tuple[str, Arrays]]:
    """Per graph, all of one engine: its version and the outputs, from the Python that has it."""
    if not graphs:
        return []
    with tempfile.TemporaryDirectory() as folder:
        works = [Path(folder) / str(number) for number in range(len(graphs))]
        for work, graph, arrays in zip(works, graphs, inputs, strict=True):
            work.mkdir()
            (work / "graph").write_bytes(bundle.read(graph.file))
            np.savez(work / "inputs.npz", **arrays)  # type: ignore[arg-type]
        command = [python, str(HERE / "run_graphs.py"), graphs[0].engine.value, *map(str, works)]
        subprocess.run(command, check=True)
        found = [dict(np.load(work / "outputs.npz")) for work in works]
    return [(str(outputs.pop("version")), outputs) for outputs in found]


def described(
    variant: str, graph: GraphSpec, version: str, inputs: Arrays, outputs: Arrays, values: bytearray
) -> dict[str, Any]:
    """A graph's entry in arrays.json; its arrays' values are appended."""
    return {
        "variant": variant,
        "component": graph.component,
        "engine": graph.engine.value,
        "engine_version": version,
        "precision": graph.precision.value,
        "file": graph.file,
        "signature": graph.signature,
        "inputs": [stored(spec, inputs, values) for spec in graph.inputs],
        "outputs": [stored(spec, outputs, values) for spec in graph.outputs],
    }


def stored(spec: TensorSpec, arrays: Arrays, values: bytearray) -> dict[str, Any]:
    """A tensor's entry: where its cases' values begin."""
    array = np.ascontiguousarray(arrays[spec.name])
    entry = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "offset": len(values)}
    if array.dtype.name != spec.dtype or array.shape[1:] != spec.shape:
        raise SystemExit(f"{spec} was given {array.dtype.name} {list(array.shape[1:])}")
    values.extend(array.tobytes())
    return entry


if __name__ == "__main__":
    main()
