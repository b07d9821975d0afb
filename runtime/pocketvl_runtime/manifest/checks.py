"""What must hold between the parts of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from pocketvl_runtime.errors import BundleError, quoted, shortened
from pocketvl_runtime.manifest.graphs import ComponentGraph, InputPort, OutputPort, PortKind, Shape
from pocketvl_runtime.manifest.names import (
    MAX_TOKENIZER_BYTES,
    Engine,
    check_name,
    check_relative_path,
    variant_name,
)
from pocketvl_runtime.manifest.processors import AudioProcessor, ImageProcessor, Processor, TextProcessor
from pocketvl_runtime.manifest.tasks import (
    ContrastiveTask,
    EmbedTask,
    GenerateTask,
    LabelsTask,
    MatchTask,
    Task,
)
from pocketvl_runtime.manifest.variants import FileEntry, VariantSpec

_MAX_LABELS_TOKENS = 2**26  # of all labels, padding included


class Parts(Protocol):
    """A manifest."""

    @property
    def processors(self) -> Mapping[str, Processor]: ...
    @property
    def graphs(self) -> Mapping[str, ComponentGraph]: ...
    @property
    def variants(self) -> Mapping[str, VariantSpec]: ...
    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def files(self) -> Mapping[str, FileEntry]: ...


def check_manifest(manifest: Parts) -> None:
    """Raises BundleError where a manifest's parts do not fit each other; the message begins with the key."""
    for path in manifest.files:
        check_relative_path(path)
    for name, processor in manifest.processors.items():
        check_name("processors:", name)
        if isinstance(processor, TextProcessor):
            _check_tokenizer_file(f"processors.{name}.file", processor.file, manifest)
    for name, graph in manifest.graphs.items():
        check_name("graphs:", name)
        for port in graph.inputs:
            _check_source(f"graphs.{name}", port, manifest)
    for name, variant in manifest.variants.items():
        _check_variant(name, variant, manifest)
    for name, task in manifest.tasks.items():
        check_name("tasks:", name)
        _check_task(f"tasks.{name}", task, manifest)


def _check_tokenizer_file(where: str, path: str, manifest: Parts) -> None:
    if path not in manifest.files:
        raise BundleError(f"{where} {quoted(path)} is not among files")
    size = manifest.files[path].bytes
    if size > MAX_TOKENIZER_BYTES:
        raise BundleError(
            f"files.{path} has {quoted(size)} bytes, and at most {MAX_TOKENIZER_BYTES} are read"
        )


def _check_source(where: str, port: InputPort, manifest: Parts) -> None:
    """Holds an input against the processor or the output that fills it."""
    if port.source is None:
        return
    component, dot, name = port.source.partition(".")
    if dot:
        graph = manifest.graphs.get(component)
        output = None if graph is None else graph.output(name)
        if output is None:
            raise BundleError(
                f"{where}: {_shown(port)} is from {quoted(port.source)}, which is no output of graphs"
            )
        if (port.kind, port.dtype) != (output.kind, output.dtype) or not _fits(port.shape, output.shape):
            raise BundleError(
                f"{where}: {_shown(port)} is wanted, and {shortened(port.source, 60)} gives {_shown(output)}"
            )
        return
    processor = manifest.processors.get(port.source)
    if processor is None:
        raise BundleError(
            f"{where}: {_shown(port)} is from {quoted(port.source)}, which is none of processors"
        )
    wanted = dict(_given(processor))
    dtype, shape = wanted.get(port.kind, ("", ()))
    if port.dtype != dtype or not _fits(port.shape, shape):
        made = ", ".join(f"{kind.value} {d} {list(s)}" for kind, (d, s) in wanted.items())
        raise BundleError(f"{where}: {_shown(port)} is wanted, and processor {port.source!r} gives {made}")


def _given(processor: Processor) -> Iterator[tuple[PortKind, tuple[str, tuple[int, ...]]]]:
    """What a processor can fill: kind, dtype and shape."""
    match processor:
        case ImageProcessor():
            yield PortKind.PIXELS, (processor.output.dtype, processor.output.shape)
        case TextProcessor():
            ids = ("int32", (1, processor.max_length))
            yield from ((PortKind.TOKEN_IDS, ids), (PortKind.ATTENTION_MASK, ids))
        case AudioProcessor():
            yield PortKind.AUDIO_FEATURES, (processor.output.dtype, processor.output.shape)


def _fits(shape: Shape, given: Shape) -> bool:
    """Whether what is given goes in: a size that has a name takes any, and may be any."""
    return len(shape) == len(given) and all(
        isinstance(size, str) or isinstance(other, str) or size == other
        for size, other in zip(shape, given, strict=True)
    )


def _check_variant(name: str, variant: VariantSpec, manifest: Parts) -> None:
    expected = variant_name(variant.engine, variant.precision)
    if name != expected:
        raise BundleError(f"variants.{shortened(name, 100)} has the engine and precision of {expected!r}")
    for component, stored in variant.files.items():
        where = f"variants.{name}.files.{shortened(component, 60)}"
        graph = _component(where, component, manifest)
        for path in stored.paths:
            if path not in manifest.files:
                key = "file" if path == stored.file else "weights"
                raise BundleError(f"{where}.{key} {quoted(path)} is not among files")
        if stored.weights is not None and variant.engine is not Engine.ONNX:
            raise BundleError(f"{where}.weights goes with graphs of ONNX, and of no other engine")
        ports: tuple[InputPort | OutputPort, ...] = (*graph.inputs, *graph.outputs)
        unknown = set(stored.ports) - {port.name for port in ports}
        if unknown:
            raise BundleError(f"{where}.ports names {quoted(sorted(unknown))}, which the component has not")
    for comparable in variant.comparable:
        for component in comparable.centred_cosine_median:
            _component(f"variants.{name}.comparable", component, manifest)


def _check_task(where: str, task: Task, manifest: Parts) -> None:
    match task:
        case ContrastiveTask():
            _check_contrastive(where, task, manifest)
        case LabelsTask():
            port = _output(f"{where}.logits", task.logits, PortKind.CLASS_LOGITS, manifest)
            if not port.dtype.is_float or port.shape != (1, len(task.labels)):
                raise BundleError(f"{where}: {len(task.labels)} labels stand for the logits {_shown(port)}")
        case EmbedTask():
            port = _output(f"{where}.embedding", task.embedding, PortKind.EMBEDDING, manifest)
            _check_embedding(f"{where}.embedding", port)
        case MatchTask():
            port = _output(f"{where}.logits", task.logits, PortKind.CLASS_LOGITS, manifest)
            if not port.dtype.is_float or len(port.shape) != 2 or port.shape[0] != 1:
                raise BundleError(f"{where}.logits is {_shown(port)}, and one float [1, N] is wanted")
            last = port.shape[-1]
            if not isinstance(last, int) or not 0 <= task.positive_index < last:
                raise BundleError(f"{where}.positive_index is none of the logits {_shown(port)}")
            if task.reranks is not None and task.reranks not in manifest.tasks:
                raise BundleError(f"{where}.reranks is {quoted(task.reranks)}, which is none of tasks")
        case GenerateTask():
            _output(f"{where}.logits", task.logits, PortKind.TOKEN_LOGITS, manifest)
            prefill = (each.component for each in task.prefill)
            connector = () if task.connector is None else (task.connector,)
            for component in (task.vision, *connector, task.embed, *prefill, task.step):
                _component(where, component, manifest)


def _check_contrastive(where: str, task: ContrastiveTask, manifest: Parts) -> None:
    first, second = (
        _output(f"{where}.{key}", port, PortKind.EMBEDDING, manifest)
        for key, port in (("first", task.first), ("second", task.second))
    )
    if task.first == task.second:
        raise BundleError(f"{where}: first and second are both {quoted(task.first)}")
    _check_embedding(f"{where}.first", first)
    if (first.dtype.is_float, first.shape) != (second.dtype.is_float, second.shape):
        raise BundleError(f"{where}: its embeddings differ: {_shown(first)} and {_shown(second)}")
    if first.space != second.space:
        raise BundleError(f"{where}: its embeddings lie in two spaces, and no cosine means anything")
    lengths = [p.max_length for p in manifest.processors.values() if isinstance(p, TextProcessor)]
    tokens = len(task.labels or ()) * max(lengths, default=0)
    if tokens > _MAX_LABELS_TOKENS:
        raise BundleError(
            f"{where}.labels: {len(task.labels or ())} have {tokens} tokens, "
            f"and at most {_MAX_LABELS_TOKENS} are read"
        )


def _check_embedding(where: str, port: OutputPort) -> None:
    if not port.dtype.is_float or len(port.shape) != 2 or port.shape[0] != 1:
        raise BundleError(f"{where} is {_shown(port)}, and one float [1, D] is wanted")


def _component(where: str, name: str, manifest: Parts) -> ComponentGraph:
    graph = manifest.graphs.get(name)
    if graph is None:
        known = quoted(sorted(manifest.graphs))
        raise BundleError(f"{where} names component {quoted(name)}, which is not among graphs {known}")
    return graph


def _output(where: str, port: str, kind: PortKind, manifest: Parts) -> OutputPort:
    """An output that a task refers to."""
    component, _, name = port.partition(".")
    graph = manifest.graphs.get(component)
    found = graph.output(name) if graph else None
    if found is None:
        raise BundleError(f"{where} is {quoted(port)}, which is no output of graphs")
    if found.kind is not kind:
        raise BundleError(f"{where} is {quoted(port)}, whose kind is {found.kind.value}, not {kind.value}")
    return found


def _shown(port: InputPort | OutputPort) -> str:
    return shortened(f"{port.name!r} {port.kind.value} {port.dtype.value} {list(port.shape)}", 100)
