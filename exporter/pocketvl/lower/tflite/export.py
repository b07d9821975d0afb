"""torch -> TFLite: one static graph of builtin ops, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pocketvl.errors import LoweringError
from pocketvl.lower.base import DEFAULT_OUTPUTS
from pocketvl.lower.distinct_weights import StandIns, content_digest, distinct_weights
from pocketvl.lower.quiet import quiet
from pocketvl.lower.tflite.graph import TFLITE_IDENTIFIER, check_ops_tflite, op_name, read_tflite, text_of
from pocketvl.lower.tflite.simplify import simplify_

WEIGHT_BEARING = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP")
"""Ops whose second input is a module's weights, except where they multiply two activations."""

_DESCRIPTION = "pocketvl"
_NO_DATA = 0
"""The buffer of tensors that are no constants; the format wants it first."""
_ROOM_BYTES = 1 << 23
"""For what is in a graph beside its weights; of a larger one the builder grows."""

FROM_TORCH: Mapping[str, tuple[int, ...]] = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0)}
"""How an op's weights lie beside torch's, by the axes of those; weights of other ops lie as in torch."""


class _Named(nn.Module):
    """Wrapper that names a module's inputs and outputs; litert-torch takes the signature's names from it."""

    def __init__(self, inner: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.inner = inner
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.inner(*(inputs[name] for name in self._inputs))
        values = (found,) if isinstance(found, torch.Tensor) else found
        return dict(zip(self._outputs, values, strict=True))


def export_tflite(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    path: Path,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
) -> None:
    """Lower a module to TFLite with the examples' static shapes.

    The one signature is called serving_default; its inputs and outputs carry the names given here. Tensors
    are called after their module, as parameters are in torch. Nothing of the machine or the moment goes
    into the file: the same module gives the same bytes.

    Args:
        module: in eval mode.
        examples: by the graph's name of each input, in the order of the module's arguments, a tensor of its
            shape and dtype; ids must be int32.
        path: where the .tflite file is written.
        outputs: names of the module's outputs.

    Raises:
        LoweringError: the module cannot be converted, or needs Flex or custom ops.
    """
    if module.training:
        raise LoweringError("the module is in training mode; call eval() before lowering it")
    with distinct_weights(module) as stand_ins:
        _convert(module, examples, outputs, path)
        check_ops_tflite(path)
        flatbuffer = read_tflite(path)
        name_tensors_(flatbuffer, module)
        simplify_(flatbuffer)
    _put_back_(flatbuffer, stand_ins, path)
    strip_(flatbuffer)
    write_tflite(flatbuffer, path)


def _convert(
    module: nn.Module, examples: Mapping[str, torch.Tensor], outputs: Sequence[str], path: Path
) -> None:
    try:
        with quiet(), _plain_norms(module):
            import litert_torch

            named = _Named(module, tuple(examples), outputs).eval()
            model = litert_torch.convert(named, sample_kwargs=dict(examples))
            model.export(str(path))
    except Exception as error:  # the converter raises whatever it likes
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise LoweringError(f"{path.name}: litert-torch could not convert the module: {lines[0]}") from error


def _put_back_(model: Any, stand_ins: StandIns, path: Path) -> None:
    """Replace stand-ins by the weights that they stand for."""
    for graph in model.subgraphs:
        for op in graph.operators:
            values = _constant(model, graph, op)
            if values is None:
                continue
            tensor = graph.tensors[op.inputs[1]]
            axes = FROM_TORCH.get(op_name(model, op), tuple(range(values.ndim)))
            own = stand_ins.own_weights(text_of(tensor.name).removesuffix(".weight"), values, axes)
            if own is not None:
                model.buffers[tensor.buffer].data = np.frombuffer(own.tobytes(), np.uint8)
    if stand_ins.left:
        raise LoweringError(f"{path.name} does not hold the weights of {stand_ins.left[0]}")


def _constant(model: Any, graph: Any, op: Any) -> np.ndarray | None:
    """The float weights of an op that bears a module's, in the layout of the file."""
    if op_name(model, op) not in WEIGHT_BEARING:
        return None
    tensor = graph.tensors[op.inputs[1]]
    data = model.buffers[tensor.buffer].data
    if data is None:  # the product of two activations
        return None
    return np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape)


@contextmanager
def _plain_norms(module: nn.Module) -> Iterator[None]:
    """Context in which LayerNorms are computed in few ops, none of which the converter folds into a linear.

    It would multiply a LayerNorm's scale into the weights of the linear that follows, while a component's
    integers are those of the module's own weights; and of a LayerNorm that scales by 1 it makes twelve ops,
    five of which read or write the whole tensor.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.LayerNorm)]
    try:
        for norm in norms:  # on the object, not its class: tensors are called after classes and attributes
            norm.forward = _in_few_ops(norm)  # type: ignore[assignment, method-assign]
        yield
    finally:
        for norm in norms:
            del norm.forward


def _in_few_ops(norm: nn.LayerNorm) -> Callable[[torch.Tensor], torch.Tensor]:
    """A LayerNorm's forward, whatever it does beside, by way of `_layer_norm`."""
    forward = norm.forward
    scales = norm.weight is not None and bool((norm.weight != 1).any())
    shifts = norm.bias is not None and bool((norm.bias != 0).any())

    def layer_norm(
        values: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        axes = tuple(range(-len(normalized_shape), 0))
        return _layer_norm(values, axes, weight if scales else None, bias if shifts else None, eps)

    def call(values: torch.Tensor) -> torch.Tensor:
        original, functional.layer_norm = functional.layer_norm, layer_norm  # type: ignore[assignment]
        try:
            return forward(values)
        finally:
            functional.layer_norm = original

    return call


def _layer_norm(
    values: torch.Tensor,
    axes: tuple[int, ...],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """torch's layer_norm; what is multiplied last is no constant that a linear's weights could take in."""
    centred = values - values.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    scaled = centred if weight is None else centred * weight
    normed = scaled * torch.rsqrt(variance + eps)
    return normed if bias is None else normed + bias


def name_tensors_(model: Any, module: nn.Module) -> None:
    """Name tensors after the module that made them ("encoder.layers.0.mlp.fc1"), weights and biases too.

    litert-torch writes the classes and attributes of the whole module stack, joined where ops were fused;
    those names are longer than many weights.

    Args:
        model: flatbuffers' object tree of one TFLite file, changed in place.
        module: what it was lowered from.
    """
    modules = dict(_stack_names(module))
    taken: set[str] = set()
    for graph in model.subgraphs:
        fixed = {*(int(i) for i in graph.inputs), *(int(i) for i in graph.outputs)}
        layers = _layer_names(model, graph, modules, module)
        # first those that others are found by, so that they get their name without a number
        for index in sorted(range(len(graph.tensors)), key=lambda i: (i not in fixed, i not in layers)):
            tensor = graph.tensors[index]
            wanted = layers.get(index) or _module_path(tensor, modules)
            if index in fixed:
                wanted = text_of(tensor.name)
            name, count = wanted, 0
            while name in taken:
                count += 1
                name = f"{wanted};{count}"
            taken.add(name)
            tensor.name = name.encode()


def _stack_names(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of the converter's name for a module, and its path in torch.

    The converter writes the stack of calls, "pkg.Outer_attribute/pkg.Inner_attribute"; containers and modules
    whose children are called past them are not in it, so that a stack's last link is given too where only one
    module has it.
    """
    links: dict[str, list[str]] = {}

    def walk(child: nn.Module, path: str, stack: str, attribute: str) -> Iterator[tuple[str, str]]:
        kind = type(child)
        if not isinstance(child, nn.ModuleList | nn.ModuleDict):
            link = f"{kind.__module__}.{kind.__qualname__}_{attribute}"
            links.setdefault(link, []).append(path)
            stack = f"{stack}/{link}"
            yield stack, path
        for name, grandchild in child.named_children():
            yield from walk(grandchild, f"{path}.{name}" if path else name, stack, name)

    yield from walk(module, "", f"{_Named.__module__}.{_Named.__qualname__}", "inner")
    yield from ((link, paths[0]) for link, paths in links.items() if len(paths) == 1)


def _paths(tensor: Any, modules: dict[str, str]) -> list[str]:
    """Paths of the modules in a tensor's name, in its order."""
    stacks = [part.split(";", 1)[0] for part in text_of(tensor.name).split(";;")]
    found = [modules.get(stack, modules.get(stack.rsplit("/", 1)[-1])) for stack in stacks]
    return [path for path in found if path is not None]


def _module_path(tensor: Any, modules: dict[str, str]) -> str:
    paths = _paths(tensor, modules)
    return paths[0] or "graph" if paths else "constant"


def _layer_names(model: Any, graph: Any, modules: dict[str, str], module: nn.Module) -> dict[int, str]:
    """Tensor index -> name, for output, weight and bias of the ops that bear a module's weights.

    Weights tell whose they are. The converter's names do only where an op has a bias: without one, linears
    that read the same are called after the first of them.
    """
    bearing: dict[str, str] = {}  # path -> what its weights are
    for path, child in module.named_modules():
        weight = getattr(child, "weight", None)
        if isinstance(weight, nn.Parameter) and not isinstance(child, nn.LayerNorm):
            bearing[path] = content_digest(weight.detach().numpy())
    names: dict[int, str] = {}
    for op in graph.operators:
        kind, values = op_name(model, op), _constant(model, graph, op)
        if kind not in WEIGHT_BEARING:
            continue
        tensors = [int(op.outputs[0]), *(int(i) for i in list(op.inputs)[1:])]
        paths = [
            path for i in tensors if i >= 0 for path in _paths(graph.tensors[i], modules) if path in bearing
        ]
        if values is not None:
            as_in_torch = values.transpose(np.argsort(FROM_TORCH.get(kind, range(values.ndim))))
            digest = content_digest(as_in_torch)
            owners = [path for path, content in bearing.items() if content == digest]
            paths = [path for path in paths if path in owners] or owners or paths
        for tensor, role in zip(tensors, ("", ".weight", ".bias"), strict=False):
            if paths and tensor >= 0 and tensor not in names:
                names[tensor] = paths[0] + role
    return names


def strip_(model: Any) -> None:
    """Remove unused data, the converter's description, and its metadata but for the least runtime version."""
    model.description = _DESCRIPTION.encode()
    kept = [entry for entry in model.metadata or [] if entry.name == b"min_runtime_version"]
    model.metadata = kept
    _drop_unused_buffers_(model)


def _drop_unused_buffers_(model: Any) -> None:
    used = {_NO_DATA, *(int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors)}
    used.update(int(entry.buffer) for entry in model.metadata or [])
    places = {old: new for new, old in enumerate(sorted(used))}
    model.buffers = [model.buffers[index] for index in sorted(used)]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = places[int(tensor.buffer)]
    for entry in model.metadata or []:
        entry.buffer = places[int(entry.buffer)]


def write_tflite(model: Any, path: Path) -> None:
    """Write flatbuffers' object tree of a TFLite file.

    The builder gets room for all of it: it grows by doubling and copying, so that a large graph would lie in
    memory four times.
    """
    import flatbuffers

    weights = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(min(weights + _ROOM_BYTES, flatbuffers.Builder.MAX_BUFFER_SIZE))
    builder.Finish(model.Pack(builder), file_identifier=TFLITE_IDENTIFIER)
    with path.open("wb") as file, memoryview(builder.Bytes) as content:
        file.write(content[builder.Head() :])
