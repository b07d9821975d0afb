"""TFLite as Android's AAR has it, driven from Python through the C API of its library.

Two builds of one version are two engines to int8: the AAR's and tensorflow-cpu's sum floats in other orders
and round some products of int8 by one step apart. Only the same library tells what the Java code adds, which
must be nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

LIBRARY = "libtensorflowlite_jni.so"  # beside the library that brings what it needs of Android
DTYPES = {1: "float32", 2: "int32", 3: "uint8", 4: "int64", 9: "int8"}  # TfLiteType
OK = 0


class DelegateOptions(ctypes.Structure):
    """TfLiteXNNPackDelegateOptions: the number of threads, then what the library fills, and room."""

    _fields_ = (("num_threads", ctypes.c_int32), ("rest", ctypes.c_char * 252))


class AarInterpreter:
    """A graph with one signature, computed as the Java API does: by XNNPACK and one thread.

    Args:
        desktop: what `make android-tflite` builds: build/android/tflite/libtflite_desktop.so.
        graph: a TFLite file.
    """

    def __init__(self, desktop: Path, graph: Path) -> None:
        ctypes.CDLL(str(desktop))
        self._library = ctypes.CDLL(str(desktop.with_name(LIBRARY)))
        self.version = str(self._call("TfLiteVersion", ctypes.c_char_p).decode())
        model = self._pointer("TfLiteModelCreateFromFile", str(graph).encode())
        options = self._pointer("TfLiteInterpreterOptionsCreate")
        self._call("TfLiteInterpreterOptionsSetNumThreads", None, options, ctypes.c_int32(1))
        delegate = self._call("TfLiteXNNPackDelegateOptionsDefault", DelegateOptions)
        delegate.num_threads = 1
        xnnpack = self._pointer("TfLiteXNNPackDelegateCreate", ctypes.byref(delegate))
        self._call("TfLiteInterpreterOptionsAddDelegate", None, options, xnnpack)
        interpreter = self._pointer("TfLiteInterpreterCreate", model, options)
        key = self._call("TfLiteInterpreterGetSignatureKey", ctypes.c_char_p, interpreter, ctypes.c_int32(0))
        self._runner = self._pointer("TfLiteInterpreterGetSignatureRunner", interpreter, key)
        self._do("TfLiteSignatureRunnerAllocateTensors", self._runner)
        count = self._call("TfLiteSignatureRunnerGetOutputCount", ctypes.c_size_t, self._runner)
        self._outputs = [
            self._call("TfLiteSignatureRunnerGetOutputName", ctypes.c_char_p, self._runner, ctypes.c_int32(i))
            for i in range(count)
        ]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs, by name.

        Args:
            inputs: by name, of the graph's shapes and dtypes.
        """
        for name, array in inputs.items():
            tensor = self._pointer("TfLiteSignatureRunnerGetInputTensor", self._runner, name.encode())
            self._do("TfLiteTensorCopyFromBuffer", tensor, *_memory(np.ascontiguousarray(array)))
        self._do("TfLiteSignatureRunnerInvoke", self._runner)
        return {name.decode(): self._output(name) for name in self._outputs}

    def _output(self, name: bytes) -> NDArray[Any]:
        tensor = self._pointer("TfLiteSignatureRunnerGetOutputTensor", self._runner, name)
        dims = range(self._call("TfLiteTensorNumDims", ctypes.c_int32, tensor))
        shape = [self._call("TfLiteTensorDim", ctypes.c_int32, tensor, ctypes.c_int32(dim)) for dim in dims]
        values = np.empty(shape, DTYPES[self._call("TfLiteTensorType", ctypes.c_int, tensor)])
        self._do("TfLiteTensorCopyToBuffer", tensor, *_memory(values))
        return values

    def _do(self, function: str, *arguments: Any) -> None:
        if self._call(function, ctypes.c_int, *arguments) != OK:
            raise ValueError(f"{function} failed")

    def _pointer(self, function: str, *arguments: Any) -> ctypes.c_void_p:
        found = self._call(function, ctypes.c_void_p, *arguments)
        if found is None:
            raise ValueError(f"{function} gave nothing")
        return ctypes.c_void_p(found)

    def _call(self, function: str, result: Any, *arguments: Any) -> Any:
        called = self._library[function]  # a new object each time, so each call has a result type of its own
        called.restype = result
        return called(*arguments)


def _memory(values: NDArray[Any]) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(values.nbytes)
