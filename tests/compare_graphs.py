"""Compares the graphs of two bundles (or folders of graphs) by what they compute, whatever things are called.

    python -m tests.compare_graphs OLD NEW

A value's digest is that of its operator with all attributes and its inputs' digests; a constant's that of its
type, shape, quantization and bytes. So names and the order in which operators are stored do not count,
operators, attributes, initializers and topology do. Then both graphs are run on the same random inputs, and
outputs have to be equal bit by bit.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pocketvl.lower.backends import backend_of_file
from pocketvl.lower.onnx.files import read_onnx
from pocketvl.lower.tflite.graph import op_name, read_tflite
from tests.lower.engines import run

_SAMPLES = 8
_LEAST_VOCABULARY = 32


@dataclass(frozen=True)
class Canonical:
    """A graph without names.

    Attributes:
        operators: label and digest of each, with counts.
        constants: digests of initializers, with counts.
        outputs: digests, in order.
    """

    operators: Counter[tuple[str, str]]
    constants: Counter[str]
    outputs: tuple[str, ...]


def canonical(path: Path) -> Canonical:
    """Reads a .onnx or .tflite file without its names."""
    return _onnx(path) if path.suffix == ".onnx" else _tflite(path)


def differences(old: Path, new: Path) -> list[str]:
    """What differs between two graph files, one line each; nothing where they are the same."""
    before, after = canonical(old), canonical(new)
    counts = Counter(label for label, _ in before.operators.elements())
    now = Counter(label for label, _ in after.operators.elements())
    found = [
        f"initializer {name[:12]}: {count:+d}" for name, count in _changed(before.constants, after.constants)
    ]
    found += [f"operator {label}: {count:+d}" for label, count in _changed(counts, now)]
    if not found and before.operators != after.operators:
        labels = sorted({label for (label, _), _ in _changed(before.operators, after.operators)})
        found.append(f"attributes or topology differ at {', '.join(labels)}")
    if not found and before.outputs != after.outputs:
        found.append("outputs come in another order")
    if not found and not _same_outputs(old, new):
        found.append("outputs of the same inputs are not equal bit by bit")
    return found


def _changed(before: Counter[Any], after: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted((key, after[key] - before[key]) for key in before | after if after[key] != before[key])


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _canonical(
    nodes: Iterable[tuple[str, object, list[str | None], list[str]]],
    values: dict[str, str],
    constants: Iterable[str],
    outputs: Iterable[str],
) -> Canonical:
    """Digests a graph.

    Args:
        nodes: label, attributes, names of inputs and of outputs, each after those that it reads.
        values: digests of inputs and constants, by name.
        constants: digests of the constants.
        outputs: names.
    """
    operators: Counter[tuple[str, str]] = Counter()
    known = dict(values)
    for label, attributes, inputs, made in nodes:
        digest = _digest(label, attributes, [name and known[name] for name in inputs])
        operators[label, digest] += 1
        known |= {name: _digest(digest, index) for index, name in enumerate(made)}
    return Canonical(operators, Counter(constants), tuple(known[name] for name in outputs))


def _onnx(path: Path) -> Canonical:
    graph = read_onnx(path, weights=True).graph
    constants = {}
    for tensor in graph.initializer:
        name = tensor.name
        tensor.ClearField("name")
        tensor.ClearField("doc_string")
        constants[name] = _digest(tensor.SerializeToString(deterministic=True))
    given = [value for value in graph.input if value.name not in constants]
    values = {v.name: _digest("input", v.name, v.type.SerializeToString()) for v in given} | constants
    nodes = [
        (
            f"{node.domain}::{node.op_type}",
            sorted(each.SerializeToString(deterministic=True) for each in node.attribute),
            [name or None for name in node.input],
            list(node.output),
        )
        for node in graph.node
    ]
    return _canonical(nodes, values, constants.values(), [value.name for value in graph.output])


def _tflite(path: Path) -> Canonical:
    model = read_tflite(path)
    (graph,) = model.subgraphs
    values, constants = {}, []
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        about = (tensor.type, _plain(tensor.shape), _plain(tensor.quantization))
        if data is not None and len(data):
            values[str(index)] = _digest("constant", about, bytes(np.asarray(data)))
            constants.append(values[str(index)])
    for place, index in enumerate(graph.inputs):
        values[str(index)] = _digest("input", place, _plain(graph.tensors[index].shape))
    nodes = [
        (
            op_name(model, operator),
            (
                _plain(operator.builtinOptions),
                _plain(operator.customOptions),
                [_quantized(graph.tensors[index]) for index in operator.outputs],
            ),
            [None if index < 0 else str(index) for index in operator.inputs],
            [str(index) for index in operator.outputs],
        )
        for operator in graph.operators
    ]
    return _canonical(nodes, values, constants, [str(index) for index in graph.outputs])


def _quantized(tensor: Any) -> object:
    return tensor.type, _plain(tensor.shape), _plain(tensor.quantization)


def _plain(value: Any) -> object:
    """What a FlatBuffer's object holds, as something that repr shows whole."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return type(value).__name__, sorted((key, _plain(item)) for key, item in vars(value).items())
    return value


def _same_outputs(old: Path, new: Path) -> bool:
    feeds = list(_random_feeds(old))
    return np.array_equal(run(old, feeds), run(new, feeds))


def _random_feeds(path: Path) -> Iterator[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(0)
    inputs = backend_of_file(path).graph_io(path).inputs
    for _ in range(_SAMPLES):
        yield {
            each.name: random.integers(
                0, 256 if each.dtype == "uint8" else _LEAST_VOCABULARY, each.shape
            ).astype(each.dtype)
            for each in inputs
        }


def main(old: Path, new: Path) -> int:
    """Prints the differences of all graphs; 0 where there are none."""
    folders = [root / "graphs" if (root / "graphs").is_dir() else root for root in (old, new)]
    names = [
        sorted(p.name for p in folder.iterdir() if p.suffix in (".onnx", ".tflite")) for folder in folders
    ]
    if names[0] != names[1]:
        click.echo(f"the graphs are {', '.join(names[0])} and {', '.join(names[1])}")
        return 1
    failed = 0
    for name in names[0]:
        found = differences(*(folder / name for folder in folders))
        same = [folder / name for folder in folders]
        how = "byte for byte" if same[0].read_bytes() == same[1].read_bytes() else "but for names"
        click.echo(f"{name}: {'; '.join(found) if found else f'identical {how}'}")
        failed += bool(found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
