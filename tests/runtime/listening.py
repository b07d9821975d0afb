"""A small bundle that listens, written in a moment: a hand-made ONNX graph of spectrograms, golden sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pocketvl_runtime.audio import load_features
from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    AnswerTolerance,
    Golden,
    GoldenArray,
    GoldenAudio,
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
    Modality,
    ModelInfo,
    OutputPort,
    PortKind,
    Precision,
    Scale,
    Status,
    VariantFile,
    VariantSpec,
)
from pocketvl_runtime.tasks import label_texts, probabilities
from pocketvl_runtime.text import Tokenizer
from tests.runtime import graphs
from tests.runtime.bundles import (
    GRAPHS,
    LABELS,
    SPACE,
    TEMPLATE,
    TEXT_PORT,
    TEXTS,
    TOKENIZER,
    file_entries,
    golden_texts,
    tokenizer_json,
)
from tests.runtime.sounds import chirp, processor, tone, write_wav

AUDIO_PORT, VARIANT = "audio_encoder.embedding", "onnx-fp32"
SOUND, SHORT = "golden/audio/chirp.wav", "golden/audio/tone.wav"
PROCESSOR = processor(seconds=0.2, n_fft=256, hop=1_000, mels=8)
_SHAPE = PROCESSOR.output.shape
_WEIGHTS = np.random.default_rng(3).normal(size=(_SHAPE[2] * _SHAPE[3], graphs.DIM)).astype(np.float32)
SCALE = Scale(20.0, 10.0)


def audio_embedding(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the audio graph computes, of a spectrogram."""
    value = features.reshape(-1) @ _WEIGHTS
    return np.asarray(value / np.linalg.norm(value), np.float32)


def write_listening(root: Path) -> Path:
    """Writes the bundle into a new folder and returns that."""
    for folder in ("graphs", "golden/audio", "golden/features"):
        (root / folder).mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(tokenizer_json())
    _audio_graph(root / "graphs/audio_encoder.fp32.onnx")
    graphs.onnx_text_graph(root / "graphs/text_encoder.fp32.onnx")
    files = {
        name: VariantFile(f"graphs/{name}.fp32.onnx", None) for name in ("audio_encoder", "text_encoder")
    }
    _write_golden(root)
    embedding = OutputPort("embedding", DType.FLOAT32, (1, graphs.DIM), PortKind.EMBEDDING, SPACE)
    features = InputPort("features", DType.FLOAT32, _SHAPE, PortKind.AUDIO_FEATURES, "audio")
    head = (AUDIO_PORT, TEXT_PORT, SCALE, 0.0, Activation.SOFTMAX)
    manifest = Manifest(
        model=ModelInfo("ears", "clap", (Modality.AUDIO, Modality.TEXT)),
        processors={"audio": PROCESSOR, "text": TOKENIZER},
        graphs={
            "audio_encoder": ComponentGraph((features,), (embedding,)),
            "text_encoder": GRAPHS["text_encoder"],
        },
        variants={VARIANT: VariantSpec.of(Engine.ONNX, Precision.FP32, Status.ACCEPTED, files)},
        tasks={"match": ContrastiveTask(*head), "classify": ContrastiveTask(*head, LABELS, TEMPLATE)},
        files=file_entries(root),
        provenance={"made": ["by hand"]},
    )
    (root / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return root


def _audio_graph(path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["features", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["raw"]),
        helper.make_node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        helper.make_node("Div", ["raw", "norm"], ["embedding"]),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, _SHAPE)
    constants = {"flat": np.asarray([1, -1]), "weights": _WEIGHTS, "last": np.asarray([-1])}
    graphs.save_onnx(path, nodes, [features], graphs.embedding_info(), **constants)


def _write_golden(root: Path) -> None:
    write_wav(root / SOUND, chirp(300.0, 6_000.0, 0.2))
    write_wav(root / SHORT, tone(440.0, 0.05, 44_100), 44_100)
    sounds, heard = [], []
    for file in (SOUND, SHORT):
        features = load_features(root / file, PROCESSOR)
        sounds.append(GoldenAudio(file, file.replace("audio", "features").replace(".wav", ".f32")))
        (root / sounds[-1].features).write_bytes(features.tobytes())
        heard.append(audio_embedding(features))
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode(TEXTS).ids
    rows = {"audio": heard, "text": [graphs.text_embedding(row) for row in ids]}
    limits = VariantTolerance(
        dict.fromkeys((AUDIO_PORT, TEXT_PORT), Tolerance(1e-4, 0.9999)),
        dict.fromkeys(("match", "classify"), AnswerTolerance(1e-4, 1e-3)),
    )
    Golden(
        inputs={"audio": tuple(sounds), "text": golden_texts(TEXTS)},
        outputs={
            port: tuple(
                GoldenArray({name: number}, (1, len(row)), tuple(row.tolist()))
                for number, row in enumerate(rows[name])
            )
            for name, port in (("audio", AUDIO_PORT), ("text", TEXT_PORT))
        },
        answers={"match": _scores(heard, TEXTS), "classify": _scores(heard, label_texts(TEMPLATE, LABELS))},
        tolerance={VARIANT: limits},
    ).write(root / GOLDEN_FILE)


def _scores(heard: list[NDArray[np.float32]], texts: tuple[str, ...] | list[str]) -> tuple[Scores, ...]:
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode(texts).ids
    read = np.stack([graphs.text_embedding(row) for row in ids]).astype(np.float64)
    rows = []
    for number, embedding in enumerate(heard):
        similarity = read @ embedding.astype(np.float64)
        probability = probabilities(similarity, SCALE.first)
        rows.append(Scores({"audio": number}, tuple(probability.tolist()), tuple(similarity.tolist())))
    return tuple(rows)
