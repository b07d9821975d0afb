"""A whole small bundle that matches by embeddings, and reranks by what reads its hidden states of images."""

from __future__ import annotations

from collections.abc import Callable
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
    ContrastiveTask,
    DType,
    Engine,
    InputPort,
    Manifest,
    MatchTask,
    Modality,
    ModelInfo,
    OutputPort,
    PortKind,
    Precision,
    Scale,
    Status,
    VariantFile,
    VariantSpec,
    variant_name,
)
from pocketvl_runtime.text import Tokenizer
from tests.runtime import graphs
from tests.runtime.bundles import (
    GRAPHS,
    IMAGE_PORT,
    LOGIT_SCALE,
    PREPROCESS,
    TEXT_PORT,
    TEXTS,
    TOKENIZER,
    file_entries,
    golden_images,
    golden_texts,
    scores,
    tokenizer_json,
)

VARIANTS = ("onnx-fp32", "tflite-fp32")
LOGITS = "fusion.logits"
POSITIVE = 1
_HIDDEN = (1, *graphs.HIDDEN)
_WRITERS: dict[Engine, dict[str, Callable[[Path], None]]] = {
    Engine.ONNX: {
        "image_encoder": graphs.onnx_seeing_graph,
        "text_encoder": graphs.onnx_text_graph,
        "fusion": graphs.onnx_fit_graph,
    },
    Engine.TFLITE: {
        "image_encoder": graphs.tflite_seeing_graph,
        "text_encoder": graphs.tflite_text_graph,
        "fusion": graphs.tflite_fit_graph,
    },
}


def ports() -> dict[str, ComponentGraph]:
    """Of the three components."""
    image, text = GRAPHS["image_encoder"], GRAPHS["text_encoder"]
    hidden = OutputPort("hidden", DType.FLOAT32, _HIDDEN, PortKind.HIDDEN)
    fusion = ComponentGraph(
        (
            InputPort("hidden", DType.FLOAT32, _HIDDEN, PortKind.HIDDEN, "image_encoder.hidden"),
            *text.inputs,
        ),
        (OutputPort("logits", DType.FLOAT32, (1, 2), PortKind.CLASS_LOGITS),),
    )
    return {
        "image_encoder": ComponentGraph(image.inputs, (*image.outputs, hidden)),
        "text_encoder": text,
        "fusion": fusion,
    }


def write_reranking_bundle(root: Path) -> Path:
    """Writes the bundle into a new folder and returns that."""
    (root / "graphs").mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(tokenizer_json())
    variants = {}
    for engine, writers in _WRITERS.items():
        files = {}
        for component, write in writers.items():
            file = f"graphs/{component}.fp32.{engine.value}"
            write(root / file)
            files[component] = VariantFile(file, "serving_default" if engine is Engine.TFLITE else None)
        name = variant_name(engine, Precision.FP32)
        variants[name] = VariantSpec.of(engine, Precision.FP32, Status.ACCEPTED, files)
    _write_golden(root)
    scale = Scale(LOGIT_SCALE, LOGIT_SCALE)
    manifest = Manifest(
        model=ModelInfo("tiny-itm", "blip", (Modality.IMAGE, Modality.TEXT)),
        processors={"image": PREPROCESS, "text": TOKENIZER},
        graphs=ports(),
        variants=variants,
        tasks={
            "match": ContrastiveTask(IMAGE_PORT, TEXT_PORT, scale, 0.0, Activation.SOFTMAX),
            "rerank": MatchTask(LOGITS, POSITIVE, Activation.SOFTMAX, "match"),
        },
        files=file_entries(root),
        provenance={"made": ["by hand"]},
    )
    (root / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return root


def fit(pixels: NDArray[np.uint8], text: str) -> float:
    """The probability that a picture and a text fit; in plain numpy."""
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode([text]).ids[0]
    powers = np.exp(graphs.fit_logits(graphs.image_hidden(pixels), ids).astype(np.float64))
    return float(powers[POSITIVE] / powers.sum())


def _write_golden(root: Path) -> None:
    """Two pictures and `TEXTS`, and each text together with one of the pictures."""
    images, pixels = golden_images(root)
    texts = golden_texts(TEXTS)
    seen = [graphs.image_embedding(each) for each in pixels]
    pairs = [{"image": k % len(images), "text": k} for k in range(len(texts))]
    ids = [np.asarray(each.ids, np.int32) for each in texts]
    logits = [
        graphs.fit_logits(graphs.image_hidden(pixels[pair["image"]]), ids[pair["text"]]) for pair in pairs
    ]
    limits = VariantTolerance(
        dict.fromkeys((IMAGE_PORT, TEXT_PORT, LOGITS), Tolerance(1e-3, 0.9999)),
        {"match": AnswerTolerance(1e-4, 1e-3), "rerank": AnswerTolerance(0.0, 1e-3)},
    )
    outputs = {
        IMAGE_PORT: [({"image": k}, row) for k, row in enumerate(seen)],
        TEXT_PORT: [({"text": k}, graphs.text_embedding(row)) for k, row in enumerate(ids)],
        LOGITS: list(zip(pairs, logits, strict=True)),
    }
    Golden(
        inputs={"image": images, "text": texts},
        outputs={
            port: tuple(GoldenArray(of, (1, len(row)), tuple(row.tolist())) for of, row in rows)
            for port, rows in outputs.items()
        },
        answers={
            "match": scores(seen, TEXTS),
            "rerank": tuple(
                Scores(pair, (fit(pixels[pair["image"]], TEXTS[pair["text"]]),)) for pair in pairs
            ),
        },
        tolerance=dict.fromkeys(VARIANTS, limits),
    ).write(root / GOLDEN_FILE)
