"""What int8 costs a trained FastViT: naive, and as pocketvl quantizes it, in both engines.

    python -m bench.fastvit_int8 STATE.pt --train DIR/train --test DIR/test

STATE.pt is what `bench.photo_fastvit` trained, DIR its pictures. Naive are ONNX Runtime's `quantize_static`
with its defaults (every op, one scale for all weights of a layer, ranges from the least to the greatest
value), and the same of convolutions and linears alone, per channel. All see the same 128 pictures of the
training part first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.photo_fastvit import save_checkpoint
from bench.photo_training import TEMPLATES
from pocketvl.data.dataset import Dataset
from pocketvl.families import open_checkpoint
from pocketvl.families.base import Component, example_inputs
from pocketvl.lower.backends import backend_of
from pocketvl.network.integers import QuantizedComponent
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.observe.structure import final_linear
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.equalize import equalize_, equalized_calibration, scalable
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.sensitivity import measure_sensitivity
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Engine, Precision
from pocketvl_runtime.text import Tokenizer

Embeddings = NDArray[np.float32]
Embed = Callable[[NDArray[np.uint8]], Embeddings]
_CALIBRATION, _AT_ONCE, _SENSITIVITY, _NAMED = 128, 50, 64, 8
_Z = 1.96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments.state, arguments.train, arguments.test, Path(scratch))


def measure(state: Path, train: Path, test: Path, work: Path) -> None:
    """Print a line for each way of quantizing, and which layers lose most by themselves."""
    opened = open_checkpoint(save_checkpoint(state, work / "checkpoint"))
    contract = opened.contract
    image = opened.component("image_encoder")
    image.module.requires_grad_(False)

    def pixels(folder: Path, count: int) -> tuple[NDArray[np.uint8], list[str]]:
        samples = Dataset.open(folder).samples
        chosen = samples[:: max(1, len(samples) // count)][:count]
        rows = [preprocess(open_image(each.image), contract.preprocess) for each in chosen]
        return np.stack(rows), [str(each.label) for each in chosen]

    (seen, _), (shown, labels) = pixels(train, _CALIBRATION), pixels(test, 1 << 30)
    names = sorted(set(labels))
    ids = (
        Tokenizer(contract.tokenizer_json, contract.tokenizer)
        .encode([TEMPLATES[0].format(n) for n in names])
        .ids
    )
    with torch.no_grad():
        texts = opened.component("text_encoder").module(torch.from_numpy(ids)).numpy()
    wanted = np.array([names.index(label) for label in labels])

    def tell(name: str, embed: Embed) -> None:
        found = embed(shown)
        share = float((np.nan_to_num(found) @ texts.T).argmax(1).__eq__(wanted).mean())
        half = _Z * (share * (1 - share) / len(wanted)) ** 0.5
        print(f"{name}: {share:.1%} +- {half:.1%}, cosine {_cosine(reference, found):.4f}", flush=True)

    reference = _torch(image.module)(shown)
    tell("torch fp32", _torch(image.module))
    fold_(image.module, example_inputs(image))
    graphs = {engine: _exported(image, engine, work / "plain") for engine in Engine}
    for name, settings in (
        ("ONNX Runtime, defaults", {}),
        ("ONNX Runtime, convolutions and linears, per channel", _WEIGHTS_ALONE),
    ):
        tell(name, _runs(_naive(graphs[Engine.ONNX], seen, settings), Engine.ONNX))
    ours(image, seen, shown, tell, work)


def ours(
    image: Component,
    seen: NDArray[np.uint8],
    shown: NDArray[np.uint8],
    tell: Callable[[str, Embed], None],
    work: Path,
) -> None:
    """The same of what pocketvl does, piece by piece, and the graphs of both engines."""
    module, example = image.module, example_inputs(image)
    final, settings = final_linear(module, example), CalibrationSettings(second_moments=True)
    kept = {name for readers in scalable(module, example) for name in readers.linears}
    feeds = np.split(seen, len(seen) // 16)
    plain = calibrate(module, feeds, settings, kept=kept)

    def quantized(precision: Precision, aside: bool = True) -> QuantizedComponent:
        sets = (image.unquantized, image.dynamic) if aside else ((), ())
        spec = component_spec(module, precision, (), final, unquantized=sets[0], dynamic=sets[1])
        return quantize_component(module, spec, statistics)

    statistics = plain
    for name, aside in (("all layers static", False), ("the stream in float", True)):
        with simulated(module, quantized(Precision.INT8, aside)):
            tell(f"simulated int8, {name}", _torch(module))
    statistics = equalized_calibration(plain, equalize_(module, example, plain, settings))
    sizes = {name: child.weight.numel() for name, child in module.named_modules() if hasattr(child, "weight")}
    floats = sum(sizes[name] for name in image.unquantized)
    print(f"in float: {len(image.unquantized)} layers, {floats / sum(sizes.values()):.1%} of the weights")
    for precision in (Precision.INT8, Precision.INT8DYN):
        component = quantized(precision)
        with simulated(module, component):
            tell(f"simulated {precision.value}, equalized too", _torch(module))
        for engine in Engine:
            graph, path = (
                _exported(image, engine, work / "equalized"),
                work / f"{precision.value}.{engine.value}",
            )
            backend_of(engine).write_quantized(graph, component, path)
            tell(f"{engine.value}-{precision.value}, {path.stat().st_size / 1e6:.2f} MB", _runs(path, engine))
    every = quantized(Precision.INT8, aside=False)
    ranked = measure_sensitivity(module, every, [shown[:_SENSITIVITY]])
    for each in ranked[:_NAMED]:
        print(f"  {each.name}: loses {each.loss:.4f} of the cosine alone")


def _torch(module: nn.Module) -> Embed:
    def embed(shown: NDArray[np.uint8]) -> Embeddings:
        with torch.no_grad():
            parts = [torch.from_numpy(shown[at : at + _AT_ONCE]) for at in range(0, len(shown), _AT_ONCE)]
            return torch.cat([module(part) for part in parts]).numpy()

    return embed


def _exported(image: Component, engine: Engine, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"graph.{engine.value}"
    if not path.exists():
        names = (port.name for port in image.inputs)
        backend_of(engine).export(image.module, dict(zip(names, example_inputs(image), strict=True)), path)
    return path


def _runs(path: Path, engine: Engine) -> Embed:
    def embed(shown: NDArray[np.uint8]) -> Embeddings:
        if engine is Engine.ONNX:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            return np.concatenate([session.run(None, {"pixels": each[None]})[0] for each in shown])
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path), num_threads=1).get_signature_runner()
        return np.concatenate([runner(pixels=each[None])["embedding"].copy() for each in shown])

    return embed


_WEIGHTS_ALONE: Mapping[str, object] = {
    "per_channel": True,
    "op_types_to_quantize": ["Conv", "MatMul", "Gemm"],
}


def _naive(graph: Path, seen: NDArray[np.uint8], settings: Mapping[str, object]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(seen)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            row = next(self._rows, None)
            return None if row is None else {"pixels": row[None]}

    target = graph.with_name(f"naive{len(settings)}.onnx")
    quantize_static(str(graph), str(target), Reader(), **settings)
    return target


def _cosine(wanted: Embeddings, found: Embeddings) -> float:
    """The median mean-centred cosine."""
    mean = wanted.mean(0)
    left, right = wanted - mean, np.nan_to_num(found) - mean
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.median((left * right).sum(1) / np.maximum(norms, 1e-12)))


if __name__ == "__main__":
    main()
