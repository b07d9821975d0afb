"""Who is compared: pocketvl's variants and its peers, what each was told, and what each needs installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OWN = "pocketvl"
TOWERS = {"image": "image_encoder", "text": "text_encoder"}


@dataclass(frozen=True)
class Peer:
    """A tool, in a virtual environment of its own.

    Attributes:
        name: of its environment.
        shown: on the page.
        requirements: what is installed.
        size: of the environment on the disk, roughly.
        worker: module under bench.peers.workers.
    """

    name: str
    shown: str
    requirements: tuple[str, ...]
    size: str
    worker: str


@dataclass(frozen=True)
class Method:
    """One way of making graphs, and of running them.

    Attributes:
        name: of its folder, and on the page.
        peer: whose; `OWN` for pocketvl.
        how: the worker's way of quantizing.
        source: suffix of the float graph that it starts from.
        suffix: of what it writes.
        told: its settings, in words.
        serve: the worker's way of running, where it is not `how`.
        made_by: the method whose graphs it runs, where it is not this one.
    """

    name: str
    peer: str
    how: str
    source: str
    suffix: str
    told: str
    serve: str | None = None
    made_by: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is a variant of pocketvl."""
        return self.peer == OWN

    @property
    def maker(self) -> str:
        """The method whose graphs are run."""
        return self.made_by or self.name


# torch comes for ExecuTorch's export, and for ONNX Runtime's transformer optimizer, which imports it.
PEERS: dict[str, Peer] = {
    each.name: each
    for each in (
        Peer(
            "openvino",
            "OpenVINO + NNCF",
            ("openvino==2026.4.1", "nncf==3.4.0", "numpy==2.4.6"),
            "0.4 GB",
            "openvino_nncf",
        ),
        Peer(
            "litert-quantizer",
            "litert-quantizer (until 0.10 ai-edge-quantizer)",
            ("litert-quantizer==0.11.0", "ai-edge-litert==2.3.0", "numpy==2.4.6"),
            "0.3 GB",
            "litert_quantizer_tool",
        ),
        Peer(
            "onnxruntime",
            "ONNX Runtime's own tools",
            ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy==1.14.0", "torch==2.13.0", "numpy==2.4.6"),
            "5 GB",
            "onnxruntime_tools",
        ),
        Peer(
            "executorch",
            "ExecuTorch XNNPACK",
            ("executorch==1.5.1", "torch==2.13.0", "torchao==0.18.0", "numpy==2.4.6"),
            "5 GB",
            "executorch_xnnpack",
        ),
    )
}

OWN_VARIANTS = {
    "tflite-int8dyn": "dynamic int8",
    "tflite-int8": "static int8",
    "tflite-int4": "int4 weights in blocks, dynamic activations",
    "onnx-int8dyn": "dynamic int8",
    "onnx-int8": "static int8",
    "tflite-fp32": "float",
    "onnx-fp32": "float",
}

METHODS: tuple[Method, ...] = (
    *(
        Method(name, OWN, name, "checkpoint", "", f"`pocketvl export` as it comes: {words}")
        for name, words in OWN_VARIANTS.items()
    ),
    Method(
        "openvino-int8",
        "openvino",
        "nncf",
        "onnx",
        ".xml",
        "`nncf.quantize(model_type=TRANSFORMER)`, its other settings left; inference precision as it comes",
        serve="as-it-comes",
    ),
    Method(
        "openvino-int8-f32",
        "openvino",
        "nncf",
        "onnx",
        ".xml",
        "the same file; `INFERENCE_PRECISION_HINT` f32",
        serve="f32",
        made_by="openvino-int8",
    ),
    Method(
        "litert-int8dyn",
        "litert-quantizer",
        "dynamic",
        "tflite",
        ".tflite",
        "`recipe.dynamic_wi8_afp32()`",
    ),
    Method(
        "litert-int8", "litert-quantizer", "static", "tflite", ".tflite", "`recipe.static_wi8_ai8()`: all ops"
    ),
    Method(
        "litert-int8-linears",
        "litert-quantizer",
        "static-linears",
        "tflite",
        ".tflite",
        "static int8 of FULLY_CONNECTED and CONV_2D alone",
    ),
    Method(
        "ort-int8dyn",
        "onnxruntime",
        "dynamic",
        "onnx",
        ".onnx",
        "`quant_pre_process`, `quantize_dynamic(per_channel=True, weight_type=QInt8)`",
    ),
    Method(
        "ort-int8",
        "onnxruntime",
        "static",
        "onnx",
        ".onnx",
        "`quant_pre_process`, `quantize_static(QDQ, per_channel=True, QUInt8, QInt8)`: all ops",
    ),
    Method(
        "ort-optimized-int8dyn",
        "onnxruntime",
        "optimized-dynamic",
        "onnx",
        ".onnx",
        "`optimize_model(model_type='clip')`, `quantize_dynamic` as above, `DefaultTensorType` FLOAT",
    ),
    Method(
        "executorch-int8dyn",
        "executorch",
        "dynamic",
        "pt2",
        ".pte",
        "`XNNPACKQuantizer`, symmetric, per channel, dynamic; "
        "`XnnpackDynamicallyQuantizedPartitioner`, then `XnnpackPartitioner`",
    ),
    Method(
        "executorch-int8",
        "executorch",
        "static",
        "pt2",
        ".pte",
        "`XNNPACKQuantizer`, symmetric, per channel, static; `XnnpackPartitioner`",
    ),
)


def chosen_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """Methods by name, or all of a peer by its; all where none is named.

    Raises:
        ValueError: one of no such name.
    """
    known = {each.name for each in METHODS} | {each.peer for each in METHODS}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"no method or peer {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return tuple(each for each in METHODS if not names or each.name in names or each.peer in names)
