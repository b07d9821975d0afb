"""Which versions of the engines compute which precisions rightly, and nothing but that."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from pocketvl_runtime.manifest import Precision

# Median cosine to fp32 of the demo model's image embeddings, x86-64 with VNNI (texts and centred cosines tell
# the same):
#
#                                             int4   int8  int8dyn  fp16, fp32
#   ai-edge-litert 1.0.1                     crash   .999   1.000     1.000
#   ai-edge-litert 1.4.0, 2.0.2, 2.0.3        .168   .999   1.000     1.000
#   ai-edge-litert 2.1.0, 2.1.6, 2.2.0, 2.3.0 .997   .999   1.000     1.000
#   tensorflow 2.12.1, 2.13.1           not tried   wrong   wrong    1.000 (fp16: "tensor lacks data")
#   tensorflow 2.14.1                        crash   .145    .145     1.000
#   tensorflow 2.15.1                         .145   .145    .145     1.000 (fp16 not tried)
#   tensorflow 2.16.1, 2.18.1 (2.17.1: crash) .301   .999   1.000     1.000
#   tensorflow 2.20.0                         .168   .999   1.000     1.000
#   tensorflow 2.21.0                         .997   .999   1.000     1.000
#   tflite-runtime 2.14.0, the last          crash   .145    .145     1.000
#   onnxruntime, ten from 1.20.0 to 1.32.0    .997   .999   1.000     1.000
#
# With TensorFlow's own kernels, without XNNPACK, it is the same: measured from 2.12.1 to 2.16.1 with golden
# packs, and for 2.16.1, which is Android's, by `make test-old-tflite`.
#
# Weights of 2 bits are refused by onnxruntime up to 1.23.2 ("Only 4b and 8b quantization is supported"), and
# right in 1.24.1 and 1.32.0; no TFLite graph has them.
#
# Else none says a word: to the old ones, blocks of 4 bits (or channels of 8) are a tensor with one scale.
# tensorflow up to 2.18 also runs TensorFlow's own ops (Flex) in a graph, and those read and write any file.
_FLOATS = {"tensorflow": "2.19"}
_INT8 = {"tensorflow": "2.19", "tflite_runtime": ""}
_INT4 = {"tensorflow": "2.21", "tflite_runtime": "", "ai_edge_litert": "2.1"}
_LEAST: dict[Precision, dict[str, str]] = {
    Precision.FP32: _FLOATS,
    Precision.FP16: _FLOATS,
    Precision.INT8: _INT8,
    Precision.INT8DYN: _INT8,
    Precision.INT4: _INT4,
    Precision.INT2: {**_INT4, "onnxruntime": "1.24"},
    Precision.MIXED: _INT4,  # it may hold layers of 4 bits
}
"""Per precision, of the modules that were not always right, the first version that is; "" where none is."""

# Top-level module: its best-known distributions; others are searched for.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "ai_edge_litert": ("ai-edge-litert",),
    "tflite_runtime": ("tflite-runtime",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
}
_RELEASE = re.compile(r"\d+(?:\.\d+)*")

# LiteRT was called TensorFlow Lite, counted its versions as TensorFlow does, and began anew with 1.0.
_TENSORFLOW_LITE = ("tflite_runtime", "tensorflow")
_LIKE_LITERT = ((2, 21), (2, 1))
"""The first TensorFlow whose interpreter computes blocks rightly, and the first LiteRT that does."""


def least_version(module: str, precision: Precision) -> str | None:
    """The first version of an engine's module that is right at a precision: None for any, "" for none."""
    return _LEAST[precision].get(module)


def is_right(module: str, precision: Precision) -> bool:
    """Whether the installed version of an engine's module computes graphs of a precision rightly.

    One that does not tell its version is trusted: `selftest` finds out.
    """
    least = least_version(module, precision)
    if not least:
        return least is None
    _, installed = distribution(module)
    return not installed or release(installed) >= release(least)


def satisfies(module: str, min_engine: str) -> bool:
    """Whether an engine's module is what a bundle's `min_engine` asks for.

    One that does not tell its version is trusted.
    """
    _, installed = distribution(module)
    return not installed or engine_release(module, installed) >= release(min_engine)


def engine_release(module: str, installed: str) -> tuple[int, ...]:
    """A module's version as `min_engine` counts it: ONNX Runtime's and LiteRT's own numbers.

    TensorFlow Lite 2.16.1, LiteRT's predecessor, counts as 0.16.1, and so it is older than LiteRT 1.0.
    TensorFlow 2.21 and newer ones count as LiteRT 2.1.
    """
    own = release(installed)
    if module not in _TENSORFLOW_LITE:
        return own
    least, counts_as = _LIKE_LITERT
    if own >= least:
        return counts_as
    return (0, *own[1:]) if own[:1] == (2,) else (0,)


def distribution(module: str) -> tuple[str, str]:
    """The distribution that brings a top-level module, and its version; "" where it does not tell."""
    for name in _DISTRIBUTIONS[module]:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    others = packages_distributions().get(module)
    return (others[0], version(others[0])) if others else (_DISTRIBUTIONS[module][0], "")


def described(module: str) -> str:
    """An engine's name and version, for people."""
    name, installed = distribution(module)
    return f"{name} {installed or 'of unknown version'}"


def release(text: str) -> tuple[int, ...]:
    """The numbers a version begins with; what marks it as early, late or local is left out."""
    match = _RELEASE.match(text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
