"""ONNX Runtime."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pocketvl_runtime.backends import (
    PACKAGES,
    Array,
    Backend,
    check_feed,
    check_tensors,
    engine_errors,
    first_line,
)
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.isa import has_exact_int8, instruction_set
from pocketvl_runtime.manifest import GraphSpec, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}
_LOG_FATAL = 4  # an error is raised, and what it says is in our own line
_EXTERNAL_KEY = b"location"
"""The key under which protobuf says in which other file a tensor's values lie."""
_BEFORE_KEY = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
"""What stands before it: the field's tag and length, in any of the ways that protobuf may write a number."""
_LONGEST_BEFORE = 20


class OnnxBackend:
    """A session of ONNX Runtime on the CPU; several threads may run it at once."""

    def __init__(
        self,
        graph: GraphSpec,
        content: bytes,
        threads: int,
        weights: bytes | None = None,
        profile_prefix: str | None = None,
    ) -> None:
        """Loads a graph; see `open_backend`.

        Args:
            profile_prefix: how the name of the file begins that its profiler writes; None: it is off.
        """
        # Without this, importing onnxruntime writes a device id into the home folder.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except Exception as error:  # a broken installation raises anything
            package = PACKAGES[graph.engine]
            raise BackendError(
                f"{package} cannot be imported ({first_line(error)}): pip install --force-reinstall {package}"
            ) from error

        if weights is None and _has_external_data(content):
            raise BackendError(
                f"{graph.graph_id}: some of its weights lie in another file, which the manifest does not "
                "list; export the bundle again"
            )
        with engine_errors(f"{graph.graph_id}: ONNX Runtime cannot load it"):
            options = onnxruntime.SessionOptions()
            _configure_(options, threads)
            if weights is not None:
                _add_weights_(options, graph, weights)
            if profile_prefix is not None:
                options.enable_profiling, options.profile_file_prefix = True, profile_prefix
            self._session = _quiet(onnxruntime.InferenceSession)(
                content, options, providers=["CPUExecutionProvider"]
            )
            self._session._model_bytes = None  # kept for the fallback alone
            tensors = (*self._session.get_inputs(), *self._session.get_outputs())
            check_tensors(graph, {t.name: (_DTYPES.get(t.type, t.type), _shape(t.shape)) for t in tensors})
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.notes = _notes(graph)
        self._graph = graph
        self._failed = f"{graph.graph_id}: ONNX Runtime failed"
        self._outputs = [spec.name for spec in graph.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        with engine_errors(self._failed):
            values = self._session.run(self._outputs, dict(inputs))
            return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def end_profile(self) -> Path:
        """Ends the profile of a session that keeps one, and says where it was written."""
        with engine_errors(self._failed):
            return Path(self._session.end_profiling())


def read_io(content: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a graph that no manifest describes; a size that is not fixed is -1.

    Raises:
        BackendError: ONNX Runtime is not installed, or refuses it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with engine_errors("ONNX Runtime cannot load the graph"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        _configure_(options, 1)
        session = _quiet(onnxruntime.InferenceSession)(content, options, providers=["CPUExecutionProvider"])
        return tuple(map(_spec, session.get_inputs())), tuple(map(_spec, session.get_outputs()))


def open_graph(graph: GraphSpec, content: bytes, threads: int, weights: bytes | None = None) -> Backend:
    """Loads a graph; see `open_backend`."""
    return OnnxBackend(graph, content, threads, weights)


def _quiet(session: Any) -> Any:
    """A class of sessions that never fall back to another provider, which they would say on stdout.

    They have an argument for that, but not in every version; `disable_fallback` comes too late.
    """
    never = property(lambda _: False, lambda _, value: None)
    return type("Session", (session,), {"_enable_fallback": never})


def _configure_(options: Any, threads: int) -> None:
    """Sets a session's options."""
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL
    # Between answers its threads would go on spinning, on a battery or against another model.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Given bytes, it takes weights in other files from the working directory. They are refused before; this
    # is a second door, and one that versions before 1.21 do not have.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if not has_exact_int8():
        # Without VNNI its int8 kernels add pairs of products in 16 bits, which saturates: wrong answers.
        options.add_session_config_entry("session.x64quantprecision", "1")


def _add_weights_(options: Any, graph: GraphSpec, weights: bytes) -> None:
    """Hands a session the weights outside the graph, which are named by their file; it opens none itself."""
    assert graph.weights is not None
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise BackendError(
            f"{graph.graph_id}: its weights lie in a file beside it, which takes ONNX Runtime 1.24 or newer: "
            f"pip install --upgrade {PACKAGES[graph.engine]}"
        )
    name = PurePosixPath(graph.weights).name
    options.add_external_initializers_from_files_in_memory([name], [weights], [len(weights)])


def _has_external_data(content: bytes) -> bool:
    """Whether a graph takes weights from elsewhere: another file, or an address in memory."""
    at = content.find(_EXTERNAL_KEY)
    while at >= 0:
        before = content[max(0, at - _LONGEST_BEFORE) : at]
        if before.endswith((b"\x08", b"\x00")) and _BEFORE_KEY.search(before):
            return True
        at = content.find(_EXTERNAL_KEY, at + 1)
    return False


def _notes(graph: GraphSpec) -> tuple[str, ...]:
    if has_exact_int8() or not graph.precision.multiplies_integers:
        return ()
    return (
        "ONNX Runtime's int8 kernels saturate on x86 without VNNI, and this is "
        f"{instruction_set()}: its exact mode is on (session.x64quantprecision=1), which costs some speed",
    )


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), _shape(tensor.shape))


def _shape(sizes: list[int | str | None]) -> tuple[int, ...]:
    """A size that is not fixed becomes -1."""
    return tuple(size if isinstance(size, int) else -1 for size in sizes)
