"""Which grids of weights the installed engines run, asked of a linear in each engine's own ops.

    python -m bench.engine_grids

Prints a line for every bits, scheme, granularity, mode and engine: how far the output is from a product with
the dequantized weights, as a share of the largest output, or what the engine said. docs/QUANTIZATION.md says
which of these pocketvl writes.
"""

from __future__ import annotations

import io
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pocketvl.lower.onnx.graph import BLOCKS_DOMAIN, BLOCKS_OP
from pocketvl.lower.onnx.quantized import packed
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.graph import read_tflite
from pocketvl.network.integers import QuantizedLayer, spread
from pocketvl.network.specification import ACTIVATION_8, Granularity, GridSpec, LayerSpec, Mode, Scheme
from pocketvl.quantize.arithmetic import quantize_weights, weight_scale, weight_zero_point

ROWS, INPUTS, OUTPUTS, GROUP = 7, 128, 48, 32
_INPUT_SCALE, _INPUT_ZERO = 0.05, 128
_TYPES = {2: (TensorProto.INT2, TensorProto.UINT2), 4: (TensorProto.INT4, TensorProto.UINT4),
          8: (TensorProto.INT8, TensorProto.UINT8)}  # fmt: skip
_SAID = 160


def specs() -> Iterator[LayerSpec]:
    """Every grid of weights in every mode."""
    for mode, bits, scheme, granularity in itertools.product(Mode, range(2, 9), Scheme, Granularity):
        weights = GridSpec(bits, scheme, granularity, GROUP if granularity is Granularity.PER_GROUP else None)
        static = (ACTIVATION_8, ACTIVATION_8) if mode is Mode.STATIC else (None, None)
        yield LayerSpec(mode, weights, *static)


def error_of_onnx(spec: LayerSpec, values: NDArray[np.float32], weights: NDArray[np.float32]) -> float:
    """How far ONNX Runtime's product is from the float one; raises what it raises."""
    import onnxruntime

    layer = _rounded(spec, weights)
    if spec.weights.bits not in _TYPES:
        graph = _blocks(layer)  # ONNX has no type for such integers; MatMulNBits has an attribute
    elif spec.weights.granularity is Granularity.PER_GROUP and spec.mode is not Mode.STATIC:
        graph = _blocks(layer)
    elif spec.mode is Mode.DYNAMIC:
        graph = _integer_product(layer)
    else:
        graph = _widened(layer, is_static=spec.mode is Mode.STATIC)
    nodes, constants = graph
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, size])
        for name, size in (("x", INPUTS), ("y", OUTPUTS))
    ]
    opsets = [helper.make_opsetid("", 25), helper.make_opsetid(BLOCKS_DOMAIN, 1)]
    made = helper.make_graph(nodes, "linear", ends[:1], ends[1:], constants)
    model = helper.make_model(made, opset_imports=opsets, ir_version=11)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return _error(session.run(["y"], {"x": values})[0], values, layer.dequantized())


def _rounded(spec: LayerSpec, weights: NDArray[np.float32]) -> QuantizedLayer:
    scale, zero_point = weight_scale(weights, spec.weights), weight_zero_point(weights, spec.weights)
    integers = quantize_weights(weights, scale, spec.weights, zero_point)
    return QuantizedLayer(spec, integers, scale, zero_point=zero_point)


def _stored(layer: QuantizedLayer) -> tuple[onnx.TensorProto, onnx.TensorProto, onnx.TensorProto]:
    """Weights [inputs, outputs] as ONNX stores integers of so few bits, their scales and zero points."""
    bits, scale = layer.spec.weights.bits, layer.scale
    zeros = np.zeros(scale.shape, np.int16) if layer.zero_point is None else layer.zero_point
    integers = layer.weights + spread(zeros.astype(np.int16), layer.weights.shape)
    if layer.spec.weights.granularity is Granularity.PER_TENSOR:
        scale, zeros = scale[0], zeros[0]
    kind = _TYPES[bits][layer.zero_point is not None]
    constants = [("w", integers.T), ("z", np.asarray(zeros).T)]
    w, z = (_tensor(name, np.asarray(each), kind) for name, each in constants)
    return w, numpy_helper.from_array(np.ascontiguousarray(np.asarray(scale, np.float32).T), "s"), z


def _tensor(name: str, values: NDArray[Any], kind: int) -> onnx.TensorProto:
    typed = np.ascontiguousarray(values).astype(helper.tensor_dtype_to_np_dtype(kind))
    return numpy_helper.from_array(typed, name)


def _widened(layer: QuantizedLayer, is_static: bool) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """DequantizeLinear before a MatMul; where static between QuantizeLinear and DequantizeLinear."""
    grouped = layer.spec.weights.granularity is Granularity.PER_GROUP
    axis: dict[str, Any] = {"axis": 0, "block_size": GROUP} if grouped else {"axis": 1}
    nodes, source, target = [], "x", "y"
    constants = list(_stored(layer))
    if is_static:
        constants += [
            _grid_scale("xs", _INPUT_SCALE),
            numpy_helper.from_array(np.asarray(_INPUT_ZERO, np.uint8), "xz"),
        ]
        constants += [_grid_scale("ys", 0.04)]
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            helper.make_node("QuantizeLinear", ["yf", "ys", "xz"], ["yq"]),
            helper.make_node("DequantizeLinear", ["yq", "ys", "xz"], ["y"]),
        ]
        source, target = "xd", "yf"
    wide = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], **axis)
    product = helper.make_node("MatMul", [source, "wd"], [target])
    return [*nodes[:2], wide, product, *nodes[2:]], constants


def _integer_product(layer: QuantizedLayer) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "s"], ["step"]),
        helper.make_node("Mul", ["f", "step"], ["y"]),
    ]
    return nodes, list(_stored(layer))


def _blocks(layer: QuantizedLayer) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    bits, zero_point = layer.spec.weights.bits, layer.zero_point
    blocks = layer.scale if layer.scale.ndim == 2 else layer.scale[:, None]
    size = INPUTS // blocks.shape[1]
    shape = (OUTPUTS, blocks.shape[1], size * bits // 8)
    constants = [numpy_helper.from_array(blocks, "s")]
    if bits in _TYPES:
        zeros = np.int16(1 << (bits - 1)) if zero_point is None else zero_point.astype(np.int16)[..., None]
        steps = layer.weights.reshape(*shape[:2], -1) + zeros
        constants.append(numpy_helper.from_array(packed(steps.astype(np.uint8), bits), "w"))
    else:
        constants.append(numpy_helper.from_array(np.zeros(shape, np.uint8), "w"))
    if zero_point is not None and bits in _TYPES:
        constants.append(numpy_helper.from_array(packed(zero_point, bits), "z"))
    level = 4 if layer.spec.mode is Mode.DYNAMIC else 0
    names = ["x", "w", "s"] + (["z"] if len(constants) == 3 else [])
    node = helper.make_node(
        BLOCKS_OP, names, ["y"], domain=BLOCKS_DOMAIN, N=OUTPUTS, K=INPUTS, bits=bits, block_size=size,
        accuracy_level=level,
    )  # fmt: skip
    return [node], constants


def _grid_scale(name: str, scale: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(scale, np.float32), name)


class LiteRt:
    """A float linear, quantized by ai-edge-quantizer in each way and run by LiteRT."""

    def __init__(self, folder: Path, values: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        """Args: folder: for graphs. values: [rows, inputs]. weights: [outputs, inputs]."""
        module = nn.Sequential(nn.Linear(INPUTS, OUTPUTS, bias=False)).eval()
        with torch.no_grad():
            module.get_parameter("0.weight").copy_(torch.from_numpy(weights))
        self._folder, self._values = folder, values
        with _silent():
            export_tflite(module, {"x": torch.from_numpy(values)}, folder / "float.tflite", ("y",))

    def error(self, spec: LayerSpec) -> float:
        """How far LiteRT's product is from one with the weights in its file; raises what it raises."""
        from ai_edge_litert.interpreter import Interpreter

        path = self._folder / "quantized.tflite"
        path.write_bytes(self._quantized(spec))
        runner = Interpreter(str(path), num_threads=1).get_signature_runner()
        found = runner(x=self._values)["y"]
        if found.dtype != np.float32:
            scale, zero_point = runner.get_output_details()["y"]["quantization"]
            found = (found.astype(np.float64) - zero_point) * scale
        return _error(found, self._values, _tflite_weights(path))

    def _quantized(self, spec: LayerSpec) -> bytes:
        from ai_edge_quantizer import qtyping, quantizer

        sizes = {Granularity.PER_TENSOR: "TENSORWISE", Granularity.PER_CHANNEL: "CHANNELWISE"}
        granularity = qtyping.QuantGranularity(sizes.get(spec.weights.granularity, f"BLOCKWISE_{GROUP}"))
        kind, is_float = qtyping.TensorDataType.INT, spec.mode is Mode.WEIGHT_ONLY
        precision = qtyping.ComputePrecision
        tool = quantizer.Quantizer(str(self._folder / "float.tflite"))
        tool.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
            op_config=qtyping.OpQuantizationConfig(
                activation_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=8, symmetric=False, dtype=kind
                )
                if spec.mode is Mode.STATIC
                else None,
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=spec.weights.bits,
                    symmetric=spec.weights.scheme is Scheme.SYMMETRIC,
                    granularity=granularity,
                    dtype=kind,
                ),
                compute_precision=precision.FLOAT if is_float else precision.INTEGER,
                explicit_dequantize=is_float,
            ),
        )
        seen = tool.calibrate({"serving_default": [{"x": self._values}]}) if spec.mode is Mode.STATIC else {}
        return bytes(tool.quantize(seen).quantized_model)


def _tflite_weights(path: Path) -> NDArray[np.float64]:
    """The weights [outputs, inputs] of the only linear of a file, dequantized."""
    from ai_edge_litert.tools.flatbuffer_utils import type_to_name

    model = read_tflite(path)
    tensors = model.subgraphs[0].tensors
    bits_of = {"INT2": 2, "INT4": 4, "INT8": 8}
    kind, tensor = next(
        (type_to_name(each.type), each)
        for each in tensors
        if type_to_name(each.type) in bits_of and list(each.shape) == [OUTPUTS, INPUTS]
    )
    content = np.asarray(model.buffers[tensor.buffer].data).view(np.uint8)
    bits = bits_of[kind]
    split = np.stack([(content >> low) & ((1 << bits) - 1) for low in range(0, 8, bits)], -1).astype(int)
    integers = np.where(split >= 1 << (bits - 1), split - (1 << bits), split).reshape(OUTPUTS, INPUTS)
    details = tensor.quantization.details
    if details is None:
        scale, zeros = (
            np.asarray(each) for each in (tensor.quantization.scale, tensor.quantization.zeroPoint)
        )
        wide: NDArray[np.float64] = (integers - zeros.reshape(-1, 1)) * scale.reshape(-1, 1).astype(
            np.float64
        )
        return wide
    scales = tensors[details.scales]
    scale = np.asarray(model.buffers[scales.buffer].data).view(np.float16).reshape(scales.shape)
    found: NDArray[np.float64] = integers * spread(scale.astype(np.float64), (OUTPUTS, INPUTS))
    return found


def _error(found: NDArray[Any], values: NDArray[np.float32], weights: NDArray[Any]) -> float:
    wanted = values.astype(np.float64) @ weights.T.astype(np.float64)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@contextmanager
def _silent() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@click.command()
def main() -> None:
    """Ask both engines about every grid."""
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, INPUTS)).astype(np.float32)
    weights = (random.normal(size=(OUTPUTS, INPUTS)) * 0.1).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        litert = LiteRt(Path(folder), values, weights)
        for spec in specs():
            grid = spec.weights
            name = f"{spec.mode.value}, {grid.bits} bits, {grid.scheme.value}, {grid.granularity.value}"
            answers = {}
            for engine in ("ONNX Runtime", "LiteRT"):
                try:
                    with _silent():
                        error = (
                            error_of_onnx(spec, values, weights) if engine != "LiteRT" else litert.error(spec)
                        )
                    answers[engine] = f"off by {error:.0e}"
                except Exception as problem:  # whatever it says is the answer
                    answers[engine] = " ".join(str(problem).split())[-_SAID:]
            for engine, answer in answers.items():
                click.echo(f"{name} | {engine} | {answer}")


if __name__ == "__main__":
    main()
