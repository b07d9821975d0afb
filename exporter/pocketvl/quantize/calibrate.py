"""Calibration: runs a float graph over samples and keeps the least and the greatest value of each tensor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.quantize.arithmetic import Range

Feed = Mapping[str, NDArray[Any]]
Progress = Callable[[int, int, str], None]


class RangeObserver:
    """Streams tensors and keeps nothing of them but their ranges."""

    def __init__(self, wanted: Iterable[str]) -> None:
        """Args: wanted: names of the tensors that must be seen."""
        self._wanted = tuple(wanted)
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}

    def observe(self, name: str, values: NDArray[np.floating]) -> None:
        """Widens the range of `name`.

        Raises:
            DataError: the values are not all finite.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN goes through min and max
            raise DataError(
                f"calibration: tensor {name} holds NaN or infinity; the model or a sample is broken"
            )
        self._low[name] = min(low, self._low.get(name, low))
        self._high[name] = max(high, self._high.get(name, high))

    def ranges(self) -> dict[str, Range]:
        """The range of every wanted tensor.

        Raises:
            DataError: one was never seen.
        """
        lost = [name for name in self._wanted if name not in self._low]
        if lost:
            raise DataError(f"calibration never saw {len(lost)} tensors of the graph, {lost[0]} for one")
        return {name: Range(self._low[name], self._high[name]) for name in self._wanted}


def observe_onnx(
    model: onnx.ModelProto, wanted: Sequence[str], feeds: Iterable[Feed], progress: Progress | None = None
) -> dict[str, Range]:
    """Runs a float ONNX graph through onnxruntime and observes inner tensors.

    Args:
        model: left as it is.
        wanted: names of float tensors of the graph.
        feeds: per sample, the graph's inputs by name.
        progress: called after each sample.

    Returns:
        The range of each wanted tensor over all samples.

    Raises:
        DataError: no samples, a tensor that is not finite, or one that was never seen.
    """
    os.environ.setdefault(
        "ORT_DISABLE_TELEMETRY", "1"
    )  # or the import writes a device id into the home folder
    import onnxruntime

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    given = {value.name for value in opened.graph.output}
    for name in wanted:
        if name not in given:
            opened.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other work may want the cores
    session = onnxruntime.InferenceSession(
        opened.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(feed: Feed, observer: RangeObserver) -> None:
        for name, value in zip(wanted, session.run(list(wanted), dict(feed)), strict=True):
            observer.observe(name, value)

    return _stream(run, wanted, feeds, progress)


def observe_tflite(
    path: Path, wanted: Mapping[str, int], feeds: Iterable[Feed], progress: Progress | None = None
) -> dict[str, Range]:
    """Runs a float TFLite graph of one signature through LiteRT and observes inner tensors.

    Args:
        path: the .tflite file.
        wanted: indices of float tensors, by the name to give them.
        feeds: per sample, the signature's inputs by name.
        progress: called after each sample.

    Returns:
        The range of each wanted tensor over all samples.

    Raises:
        DataError: no samples, a tensor that is not finite, or one that was never seen.
    """
    from ai_edge_litert.interpreter import Interpreter

    threads = min(4, os.cpu_count() or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping every tensor takes memory: it is what we are here for
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True, num_threads=threads)
    runner = interpreter.get_signature_runner()

    def run(feed: Feed, observer: RangeObserver) -> None:
        runner(**feed)
        for name, index in wanted.items():
            observer.observe(name, interpreter.get_tensor(index))

    return _stream(run, tuple(wanted), feeds, progress)


def _stream(
    run: Callable[[Feed, RangeObserver], None],
    wanted: Sequence[str],
    feeds: Iterable[Feed],
    progress: Progress | None,
) -> dict[str, Range]:
    observer = RangeObserver(wanted)
    total, done = length_hint(feeds), 0
    for feed in feeds:
        run(feed, observer)
        done += 1
        if progress is not None:
            progress(done, max(total, done), "calibration")
    if done == 0:
        raise DataError("calibration needs at least one sample, and got none")
    return observer.ranges()
