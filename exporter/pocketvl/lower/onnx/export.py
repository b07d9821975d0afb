"""torch -> ONNX: one static graph with plain ops, the same bytes every time."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower.base import DEFAULT_OUTPUTS
from pocketvl.lower.distinct_weights import StandIns, distinct_weights
from pocketvl.lower.onnx.files import MOST_INSIDE, read_onnx, tensor_bytes, write_onnx
from pocketvl.lower.onnx.gelus import order_gelus_
from pocketvl.lower.onnx.graph import check_ops_onnx
from pocketvl.lower.quiet import quiet

OPSET = 18
# Joins the q, k and v projections into one MatMul: their weights would be no module's any more, so that a
# layer could not be quantized, measured or left in float by itself.
_SKIPPED = ["fuse_qkv"]
_EXPORT_PREFIX = "graph_"


def export_onnx(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    path: Path,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
) -> None:
    """Lower a module to ONNX with the examples' static shapes.

    Weights keep their module's parameter names. Nothing of the machine, the moment or the source code goes
    into the file: the same module gives the same bytes.

    Args:
        module: in eval mode.
        examples: by the graph's name of each input, in the order of the module's arguments, a tensor of its
            shape and dtype.
        path: where the .onnx file is written.
        outputs: names of the module's outputs.

    Raises:
        LoweringError: the module cannot be exported, or needs ops outside ai.onnx.
    """
    with distinct_weights(module) as stand_ins:
        try:
            model = _simplify(_export(module, examples, outputs), path.parent)
        except LoweringError:
            raise
        except Exception as error:  # torch.onnx and onnxsim raise whatever they like
            raise LoweringError(
                f"{path.name}: torch.onnx could not export the module: {_first_line(error)}"
            ) from error
        name_weights_(model.graph, module)
    _put_back_(model.graph, stand_ins, path)
    order_gelus_(model.graph)
    strip_(model)
    write_onnx(model, path)
    check_ops_onnx(path)


def _export(
    module: nn.Module, examples: Mapping[str, torch.Tensor], outputs: Sequence[str]
) -> onnx.ModelProto:
    if module.training:
        raise LoweringError("the module is in training mode; call eval() before lowering it")
    # torch calls values after the op that made them, and does not look whether an output is called so too:
    # "embedding" is both. So inputs and outputs get a prefix that no op has, and lose it afterwards.
    names = {_EXPORT_PREFIX + name: name for name in (*examples, *outputs)}
    exported = list(names)
    with quiet():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=exported[: len(examples)],
            output_names=exported[len(examples) :],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise LoweringError("torch.onnx gave no program")
    model = program.model_proto
    _rename_(model.graph, names)
    return model


def _rename_(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename values; where a new name is taken already, the value that has it gets a suffix first."""
    taken = {name for node in graph.node for name in node.output} | {
        tensor.name for tensor in graph.initializer
    }
    moved = {new: f"{new}_value" for new in names.values() if new in taken}
    mapping = {**moved, **names}
    for node in graph.node:
        _replace_(node.input, mapping)
        _replace_(node.output, mapping)
    for tensor in graph.initializer:
        tensor.name = mapping.get(tensor.name, tensor.name)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = mapping.get(value.name, value.name)


def _replace_(names: Iterable[str], mapping: dict[str, str]) -> None:
    for index, name in enumerate(list(names)):
        names[index] = mapping.get(name, name)  # type: ignore[index]  # protobuf's repeated field


def _simplify(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    import onnxsim

    if tensor_bytes(model) > MOST_INSIDE:  # more than a protobuf holds, and onnxsim takes one from memory
        return _simplify_on_disk(model, scratch)
    simplified, holds = onnxsim.simplify(model, skipped_optimizers=list(_SKIPPED))
    if not holds:
        raise LoweringError("onnxsim's result does not agree with its input")
    result: onnx.ModelProto = simplified
    return result


def _simplify_on_disk(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """The same through files with their weights beside them."""
    import onnxsim

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "simplified.onnx")
        onnx.save(model, source, save_as_external_data=True, location="source.weights")
        onnxsim.simplify(str(source), skipped_optimizers=list(_SKIPPED), output_path=str(target))
        return read_onnx(target, weights=True)


def name_weights_(graph: onnx.GraphProto, module: nn.Module) -> None:
    """Give back their module's name to weights that were transposed, and so renamed, on the way."""
    names = {tensor.name for tensor in graph.initializer}
    by_content: dict[str, str] = {}
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and name not in names:
            by_content.setdefault(_digest(parameter.detach().t().contiguous().numpy().tobytes()), name)
    mapping = {}
    for tensor in graph.initializer:
        if len(tensor.dims) == 2:
            name = by_content.pop(_digest(numpy_helper.to_array(tensor).tobytes()), "")
            if name and tensor.name != name:
                mapping[tensor.name] = name
                tensor.name = name
    for node in graph.node:
        _replace_(node.input, mapping)


def _put_back_(graph: onnx.GraphProto, stand_ins: StandIns, path: Path) -> None:
    """Replace stand-ins by the weights that they stand for, which some ops read transposed."""
    for tensor in graph.initializer:
        name, values = tensor.name.removesuffix(".weight"), numpy_helper.to_array(tensor)
        axes = tuple(range(values.ndim))
        for order in (axes, axes[::-1]) if values.ndim == 2 else (axes,):
            own = stand_ins.own_weights(name, values, order)
            if own is not None:
                tensor.CopyFrom(numpy_helper.from_array(own, tensor.name))
    if stand_ins.left:
        raise LoweringError(f"{path.name} does not hold the weights of {stand_ins.left[0]}")


def strip_(model: onnx.ModelProto) -> None:
    """Remove what tells of the machine, the source code or the run: stack traces, doc strings, versions."""
    graph = model.graph
    model.producer_name, model.producer_version, model.doc_string = "pocketvl", "", ""
    model.domain, model.model_version = "", 0
    graph.name, graph.doc_string = "graph", ""
    del model.metadata_props[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del graph.value_info[:]  # inferred again by whoever wants them


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
