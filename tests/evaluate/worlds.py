"""Small synthetic data with known answers, for the tests of evaluation and gate."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset, Sample
from pocketvl.evaluate.compare import reference_metrics, variant_metrics
from pocketvl.evaluate.html import ImageMatches
from pocketvl.evaluate.report import DataReport, Latency, MachineReport, Report, Sensitivity, VariantReport
from pocketvl.select.gate import GateSettings, judge_report
from pocketvl.tasks.contrastive_metrics import Embeddings
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl.tasks.parity import measure_parity
from pocketvl_runtime.manifest import Comparable, Engine, Modality, Precision, Status


def sample(index: int, **known: object) -> Sample:
    return dataclasses.replace(Sample({Modality.IMAGE: Path(f"/nowhere/{index}.png")}), **known)  # type: ignore[arg-type]


def dataset(*samples: Sample) -> Dataset:
    return Dataset(Path("/nowhere"), samples)


def embeddings(image: list[list[float]], texts: dict[str, list[float]]) -> Embeddings:
    rows = np.array(list(texts.values()), dtype=np.float32)
    return Embeddings(np.array(image, dtype=np.float32), rows, tuple(texts))


def retrieval_world(count: int) -> tuple[Dataset, Embeddings]:
    """`count` samples whose caption's embedding is its own picture's: everything is found."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captions = tuple(f"caption {index}" for index in range(count))
    world = dataset(*(sample(index, captions=(caption,)) for index, caption in enumerate(captions)))
    return world, Embeddings(vectors, vectors.copy(), captions)


def outcomes(*right: bool) -> TaskOutcomes:
    kinds = {"colour": np.array(right, dtype=np.bool_), "relation": ~np.array(right, dtype=np.bool_)}
    task = TaskOutcome(Metric.MATCH_HARD, np.array(right, dtype=np.bool_), kinds)
    return TaskOutcomes({Metric.MATCH_HARD: task}, ())


def synthetic_report(lost: int = 1, samples: int = 200) -> Report:
    """A judged report of two engines; tflite-int8 loses `lost` of `samples` right answers."""
    rng = np.random.default_rng(1)
    reference = outcomes(*[True] * (samples - 40), *[False] * 40)
    worse = outcomes(*[False] * lost, *[True] * (samples - 40 - lost), *[False] * 40)
    base = rng.normal(size=(50, 16)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)

    def variant(engine: Engine, precision: Precision, noise: float, answers: TaskOutcomes) -> VariantReport:
        parity = measure_parity(base, base + noise * rng.normal(size=base.shape).astype(np.float32))
        whole = precision is Precision.FP32
        latency = Latency(3.6, 4.0) if whole else Latency(0.9, 1.0)
        return VariantReport(
            engine=engine,
            precision=precision,
            status=Status.ACCEPTED,
            size_bytes=8_000_000 if whole else 2_000_000,
            files={f"image_encoder.{precision.value}.{engine.value}": 1_000_000},
            metrics=variant_metrics(reference, answers),
            parity={"image_encoder.embedding": parity, "text_encoder.embedding": parity},
            latency_ms={stage: {"1": latency, "2": latency} for stage in ("image", "text", "total")},
            peak_rss_bytes=80_000_000,
            ops={"image_encoder": {"MatMul": 12, "Add": 3}},
            comparable=(Comparable("sha256:00", {"image_encoder": 0.999}),),
            notes=("says <b>something</b>",),
        )

    variants = [
        variant(Engine.TFLITE, Precision.INT8, 1e-3, worse),
        variant(Engine.TFLITE, Precision.FP32, 1e-8, reference),
        variant(Engine.ONNX, Precision.FP32, 1e-8, reference),
    ]
    report = Report(
        name="tiny-clip",
        family="clip",
        machine=MachineReport("Example CPU 9000", "avx2", 2, False, {Engine.ONNX: "onnxruntime 1.0"}),
        reference=reference_metrics(reference),
        variants={variant.name: variant for variant in variants},
        data=DataReport("unseen", samples, 900, "ab" * 32),
        sensitivity=(Sensitivity("vision.layers.0", 8, 0.25),),
        notes=("classify: not measured",),
        provenance={"tools": {"torch": "2"}, "stages": [1, None, "x"]},
    )
    return judge_report(report, GateSettings())


def picture(name: str = "a.png", size: tuple[int, int] = (800, 400)) -> ImageMatches:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(out, format="PNG")
    texts = ("a red wall", "a <script>alert(1)</script> cat", "a blue cube")
    return ImageMatches(name, out.getvalue(), texts, (0.7, 0.2, 0.1), {"tflite-int8": (0.3, 0.6, 0.1)})
