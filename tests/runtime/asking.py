"""A whole small bundle whose one component reads a picture and a question, and knows eight answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    AnswerTolerance,
    Golden,
    GoldenArray,
    Scores,
    Tolerance,
    VariantTolerance,
)
from pocketvl_runtime.manifest import (
    MANIFEST_FILE,
    Activation,
    ComponentGraph,
    DType,
    Engine,
    InputPort,
    LabelsTask,
    Manifest,
    Modality,
    ModelInfo,
    OutputPort,
    PortKind,
    Precision,
    Status,
    VariantFile,
    VariantSpec,
    variant_name,
)
from tests.runtime import graphs
from tests.runtime.bundles import (
    PREPROCESS,
    TOKENIZER,
    file_entries,
    golden_images,
    golden_texts,
    tokenizer_json,
)

QUESTIONS = ("a red cube", "the blue ball of green", "ball")
ANSWERS = ("yes", "no", "red", "blue", "cube", "ball", "one", "two")
VARIANTS = ("onnx-fp32", "tflite-fp32")
LOGITS = "fusion.logits"


def fusion_ports() -> ComponentGraph:
    """Of the one component."""
    size = (1, graphs.SIZE, graphs.SIZE, 3)
    pixels = InputPort("pixels", DType.UINT8, size, PortKind.PIXELS, "image")
    ids = InputPort("ids", DType.INT32, (1, graphs.LENGTH), PortKind.TOKEN_IDS, "text")
    logits = OutputPort("logits", DType.FLOAT32, (1, len(ANSWERS)), PortKind.CLASS_LOGITS)
    return ComponentGraph((pixels, ids), (logits,))


def write_asking_bundle(root: Path) -> Path:
    """Writes the bundle into a new folder and returns that."""
    (root / "graphs").mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(tokenizer_json())
    graphs.onnx_fusion_graph(root / "graphs" / "fusion.fp32.onnx")
    graphs.tflite_fusion_graph(root / "graphs" / "fusion.fp32.tflite")
    variants = {}
    for engine, signature in ((Engine.ONNX, None), (Engine.TFLITE, "serving_default")):
        files = {"fusion": VariantFile(f"graphs/fusion.fp32.{engine.value}", signature)}
        name = variant_name(engine, Precision.FP32)
        variants[name] = VariantSpec.of(engine, Precision.FP32, Status.ACCEPTED, files)
    _write_golden(root)
    manifest = Manifest(
        model=ModelInfo("tiny-vqa", "vilt", (Modality.IMAGE, Modality.TEXT)),
        processors={"image": PREPROCESS, "text": TOKENIZER},
        graphs={"fusion": fusion_ports()},
        variants=variants,
        tasks={"ask": LabelsTask(LOGITS, ANSWERS, Activation.SOFTMAX)},
        files=file_entries(root),
        provenance={"made": ["by hand"]},
    )
    (root / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return root


def _write_golden(root: Path) -> None:
    """Two pictures, and `QUESTIONS` about them in turn."""
    images, pixels = golden_images(root)
    texts = golden_texts(QUESTIONS)
    pairs = [{"image": k % len(images), "text": k} for k in range(len(texts))]
    rows = [
        graphs.fusion_logits(pixels[pair["image"]], np.asarray(texts[pair["text"]].ids, np.int32))
        for pair in pairs
    ]
    limits = VariantTolerance({LOGITS: Tolerance(1e-4, 0.9999)}, {"ask": AnswerTolerance(0.0, 1e-4)})
    Golden(
        inputs={"image": images, "text": texts},
        outputs={
            LOGITS: tuple(
                GoldenArray(pair, (1, len(row)), tuple(row.tolist()))
                for pair, row in zip(pairs, rows, strict=True)
            )
        },
        answers={"ask": tuple(scores(pair, row) for pair, row in zip(pairs, rows, strict=True))},
        tolerance=dict.fromkeys(VARIANTS, limits),
    ).write(root / GOLDEN_FILE)


def scores(pair: dict[str, int], logits: NDArray[np.float32]) -> Scores:
    """What ask says of logits [N]; in plain numpy."""
    powers = np.exp(logits.astype(np.float64))
    return Scores(pair, tuple((powers / powers.sum()).tolist()), answer=ANSWERS[int(logits.argmax())])
