"""The golden pack holds torch's answers, and a tolerance that each variant's answers keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.pipelines.bundle import golden_embeddings, write_base
from pocketvl.pipelines.measure import with_tolerances
from pocketvl.tasks.contrastive_metrics import Embeddings
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import Golden
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Engine, Precision, Status, VariantSpec
from pocketvl_runtime.selftest import _wrong_scores
from pocketvl_runtime.tasks import label_texts, probabilities, similarities
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import make_tiny_clip
from tests.runtime.bundles import picture

LABELS = ("circle", "square", "star")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(make_tiny_clip(tmp_path_factory.mktemp("source") / "clip"))


def dataset(root: Path, labels: tuple[str, ...]) -> Dataset:
    root.mkdir()
    rows = []
    for index in range(6):
        picture((40, 30), seed=index).save(root / f"{index}.png")
        rows.append({"image": f"{index}.png", "captions": [f"caption {index}"]})
        rows[-1] |= {"label": labels[index % len(labels)]} if labels else {}
    write_samples(root, rows)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def base(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("base")
    (root / "out").mkdir()
    write_base(source, dataset(root / "data", LABELS), root / "out")
    return Bundle.open(root / "out")


def by_torch(source: Checkpoint, bundle: Bundle, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and probabilities [I, N] without the runtime's arithmetic."""
    golden = bundle.golden()
    pixels = [load_pixels(bundle.file(image.file), source.preprocess) for image in golden.images]
    ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts).ids
    with torch.inference_mode():
        images = source.tower("image_encoder")(torch.from_numpy(np.stack(pixels))).double()
        read = source.tower("text_encoder")(torch.from_numpy(ids)).double()
        similarity = images @ read.T
        return similarity.numpy(), torch.softmax(source.logit_scale * similarity, dim=1).numpy()


def test_the_pack_holds_torchs_answers(source: Checkpoint, base: Bundle) -> None:
    answers = base.golden().answers
    assert answers is not None
    assert (answers.space, answers.logit_scale) == (source.space(), source.logit_scale)
    assert answers.labels == base.manifest.labels == LABELS
    assert answers.label_template == base.manifest.label_template
    labels = [f"a photo of a {label}" for label in LABELS]
    texts = [text.text for text in base.golden().texts]
    for asked, rows in ((texts, answers.match), (labels, answers.classify)):
        similarity, probability = by_torch(source, base, asked)
        np.testing.assert_allclose([row.similarity for row in rows], similarity, atol=2e-6)
        np.testing.assert_allclose([row.probability for row in rows], probability, atol=2e-5)


def test_without_labels_there_is_nothing_to_classify(source: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_base(source, dataset(tmp_path / "data", ()), tmp_path / "out")
    answers = Bundle.open(tmp_path / "out").golden().answers
    assert answers is not None
    assert (answers.labels, answers.classify, len(answers.match)) == ((), (), 6)


def labels_read(source: Checkpoint) -> np.ndarray:
    ids = (
        Tokenizer(source.tokenizer_json, source.tokenizer)
        .encode(label_texts("a photo of a {label}", LABELS))
        .ids
    )
    with torch.inference_mode():
        return np.asarray(source.tower("text_encoder")(torch.from_numpy(ids)).numpy())


def off_by(golden: Golden, labels: np.ndarray, noise: float) -> Embeddings:
    """What a variant would answer whose embeddings are off by so much."""
    exact, rng = golden_embeddings(golden), np.random.default_rng(0)

    def near(rows: np.ndarray) -> np.ndarray:
        moved = rows + noise * rng.normal(size=rows.shape)
        return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)

    texts = np.concatenate([near(exact.text), near(labels)])
    return Embeddings(near(exact.image), texts, (*exact.texts, *label_texts("a photo of a {label}", LABELS)))


@pytest.mark.parametrize("noise", [0.0, 1e-3, 2e-2, 0.3])
def test_a_variants_answers_keep_their_tolerance_and_little_more_is_allowed(
    source: Checkpoint, base: Bundle, noise: float
) -> None:
    golden = base.golden()
    got = off_by(golden, labels_read(source), noise)
    spec = VariantSpec(Engine.ONNX, Precision.INT8, Status.EXPERIMENTAL, {})
    answers = with_tolerances(golden, {"onnx-int8": got}, {"onnx-int8": spec}).answers
    assert answers is not None
    limit = answers.tolerance["onnx-int8"]
    assert limit.status is Status.EXPERIMENTAL
    off = {"similarity": 0.0, "probability": 0.0}
    for rows, texts in ((answers.match, got.text[:12]), (answers.classify, got.text[12:])):
        for expected, seen in zip(rows, got.image, strict=True):
            similarity = similarities(seen, texts)
            probability = probabilities(similarity, answers.logit_scale)
            assert _wrong_scores(similarity, probability, expected, limit) is None
            off["similarity"] = max(off["similarity"], np.abs(similarity - expected.similarity).max())
            off["probability"] = max(off["probability"], np.abs(probability - expected.probability).max())
    assert limit.similarity == pytest.approx(2 * off["similarity"] + 0.005, abs=1.1e-4)
    margin = 0.005 * source.logit_scale / 2
    assert limit.probability == pytest.approx(min(1.0, 2 * off["probability"] + margin), abs=1.1e-4)


def test_fp32_has_next_to_no_margin(source: Checkpoint, base: Bundle) -> None:
    golden = base.golden()
    exact = {"onnx-fp32": off_by(golden, labels_read(source), 0.0)}
    spec = VariantSpec(Engine.ONNX, Precision.FP32, Status.ACCEPTED, {})
    answers = with_tolerances(golden, exact, {"onnx-fp32": spec}).answers
    assert answers is not None
    assert answers.tolerance["onnx-fp32"].similarity <= 2.1e-4
    assert answers.tolerance["onnx-fp32"].probability <= 0.001


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_variant_that_answers_nan_has_a_tolerance_all_the_same(
    source: Checkpoint, base: Bundle, broken: float
) -> None:
    golden = base.golden()
    got = off_by(golden, labels_read(source), 0.0)
    got = replace(got, image=np.full_like(got.image, broken))
    spec = VariantSpec(Engine.ONNX, Precision.FP16, Status.EXPERIMENTAL, {})
    judged = with_tolerances(golden, {"onnx-fp16": got}, {"onnx-fp16": spec})
    assert judged.answers is not None
    limit = judged.answers.tolerance["onnx-fp16"]
    assert (limit.similarity, limit.probability) == (2.0, 1.0)
    assert Golden.from_json(judged.to_json()) == judged
