"""Write inputs of a bundle's graphs and what engines in Python give, to test the Android engines.

    python -m tests.android.write_arrays BUNDLE OUT --onnx-python PYTHON --tflite-python PYTHON --library FILE

Both PYTHONs have the engines in the versions of the Java packages, and FILE is the AAR's own library;
android_demo/android.mk makes them. OUT gets arrays.json, which lists graphs and cases, and arrays.bin, where
their values lie, little-endian and row-major, at the offsets that it names.
`mvn verify -Dpocketvl.arrays=OUT` reads them; several OUTs have a ":" between.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import GoldenImage, GoldenText
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Engine, GraphSpec, ImageProcessor, PortKind, TensorSpec, TextProcessor
from pocketvl_runtime.obstacles import runnable_tasks
from pocketvl_runtime.text import Tokenizer

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-3
Arrays = dict[str, NDArray[Any]]
Made = dict[str, list[dict[PortKind, NDArray[Any]]]]


@dataclass(frozen=True)
class Source:
    """A build of an engine that says what the outputs must be.

    Attributes:
        name: for people.
        engine: the graphs that it computes.
        python: which has what it needs.
        runs: what run_graphs.py is told: "onnx", "tflite" or the path of the AAR's library.
        same_build: whether it is compiled as what Java runs is. Another build sums floats in another order
            and rounds some products of int8 by one step apart, which a network of integers carries on.
    """

    name: str
    engine: Engine
    python: str
    runs: str
    same_build: bool


def main() -> None:
    """Writes the cases of one bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--onnx-python", type=Path, required=True, help="one that has onnxruntime")
    parser.add_argument("--tflite-python", type=Path, required=True, help="one that has tensorflow-cpu")
    parser.add_argument(
        "--library", type=Path, required=True, help="libtflite_desktop.so, beside the AAR's library"
    )
    parser.add_argument("--data", type=Path, help="a dataset folder; default: the golden pack, then noise")
    parser.add_argument("--count", type=int, default=100, help="cases of each graph")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sources = (
        Source("onnxruntime", Engine.ONNX, str(given.onnx_python.absolute()), "onnx", same_build=True),
        Source(
            "the AAR's library", Engine.TFLITE, sys.executable, str(given.library.resolve()), same_build=True
        ),
        Source(
            "tensorflow-cpu", Engine.TFLITE, str(given.tflite_python.absolute()), "tflite", same_build=False
        ),
    )
    bundle = Bundle.open(given.bundle)
    if given.data is not None:
        made = processed_data(bundle, Dataset.open(given.data), given.count)
    else:
        made = processed_golden(bundle, given.count, np.random.default_rng(given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    values = bytearray()
    graphs: list[dict[str, Any]] = []
    for engine in Engine:
        wanted = [
            (variant, graph)
            for variant in bundle.manifest.variants
            for graph in bundle.graphs(variant)
            if graph.engine is engine
        ]
        inputs = [component_inputs(bundle, graph, made, given.count) for _, graph in wanted]
        entries = [
            described(variant, graph, arrays, values)
            for (variant, graph), arrays in zip(wanted, inputs, strict=True)
        ]
        for source in sources:
            if source.engine is engine:
                found = computed(bundle, [graph for _, graph in wanted], inputs, source)
                for entry, (_, graph), (version, outputs) in zip(entries, wanted, found, strict=True):
                    entry["references"].append(reference(source, graph, version, outputs, values))
        graphs += entries
    (given.out / "arrays.bin").write_bytes(values)
    ranking = "similarity" if "match" in runnable_tasks(bundle.manifest) else "largest"
    listing = {
        "bundle": str(given.bundle.resolve()),
        "cases": given.count,
        "ranking": ranking,
        "graphs": graphs,
    }
    (given.out / "arrays.json").write_text(json.dumps(listing, indent=1) + "\n")


def processed_data(bundle: Bundle, dataset: Dataset, count: int) -> Made:
    """What processors make of pictures with first captions, or with questions where a bundle answers."""
    if "match" in runnable_tasks(bundle.manifest):
        pairs = [(sample.image, sample.captions[0]) for sample in dataset.samples[:count]]
    else:
        questions = questions_of(dataset)[:: len(dataset) // count]  # of many pictures
        pairs = [(dataset.samples[each.sample].image, each.text) for each in questions[:count]]
    made: Made = {}
    for name, processor in bundle.manifest.processors.items():
        if isinstance(processor, TextProcessor):
            tokenizer = Tokenizer(bundle.read(processor.file), processor)
            made[name] = [encoded(tokenizer, text) for _, text in pairs]
        elif isinstance(processor, ImageProcessor):
            made[name] = [{PortKind.PIXELS: load_pixels(picture, processor)[None]} for picture, _ in pairs]
    return made


def encoded(tokenizer: Tokenizer, text: str) -> dict[PortKind, NDArray[Any]]:
    """A text's ids and mask, each [1, T]."""
    encoding = tokenizer.encode([text])
    return {PortKind.TOKEN_IDS: encoding.ids[:1], PortKind.ATTENTION_MASK: encoding.mask[:1]}


def processed_golden(bundle: Bundle, count: int, random: np.random.Generator) -> Made:
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
                made[name].append(encoded(Tokenizer(bundle.read(processor.file), processor), each.text))
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
    bundle: Bundle, graphs: list[GraphSpec], inputs: list[Arrays], source: Source
) -> list[tuple[str, Arrays]]:
    """Per graph, all of one engine: the engine's version and the outputs."""
    if not graphs:
        return []
    with tempfile.TemporaryDirectory() as folder:
        works = [Path(folder) / str(number) for number in range(len(graphs))]
        for work, graph, arrays in zip(works, graphs, inputs, strict=True):
            work.mkdir()
            (work / "graph").write_bytes(bundle.read(graph.file))
            np.savez(work / "inputs.npz", **arrays)  # type: ignore[arg-type]
        command = [source.python, "-m", "tests.android.run_graphs", source.runs, *map(str, works)]
        subprocess.run(command, check=True, cwd=ROOT)
        found = [dict(np.load(work / "outputs.npz")) for work in works]
    return [(str(outputs.pop("version")), outputs) for outputs in found]


def described(variant: str, graph: GraphSpec, inputs: Arrays, values: bytearray) -> dict[str, Any]:
    """A graph's entry in arrays.json, without references; its inputs' values are appended."""
    return {
        "variant": variant,
        "component": graph.component,
        "engine": graph.engine.value,
        "precision": graph.precision.value,
        "file": graph.file,
        "signature": graph.signature,
        "inputs": [stored(spec, inputs, values) for spec in graph.inputs],
        "references": [],
    }


def reference(
    source: Source, graph: GraphSpec, version: str, outputs: Arrays, values: bytearray
) -> dict[str, Any]:
    """What a source gave; its values are appended."""
    floats = graph.precision.value.startswith("fp")
    return {
        "source": source.name,
        "version": version,
        "tolerance": TOLERANCE if source.same_build or floats else None,
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
