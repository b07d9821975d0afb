"""The golden pack holds torch's answers, and a tolerance that each variant's answers keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.pipelines.bundle import write_base
from pocketvl.pipelines.measure import with_tolerances
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.golden import GoldenInputs, expected_outputs
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import Golden, Scores
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import ContrastiveTask, Engine, Precision, Scale, Status, VariantSpec
from pocketvl_runtime.selftest import _wrong_scores
from pocketvl_runtime.tasks import label_texts, probabilities, similarities
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import make_tiny_clip
from tests.runtime.bundles import picture

IMAGE, TEXT = "image_encoder.embedding", "text_encoder.embedding"
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
        images = source.component("image_encoder").module(torch.from_numpy(np.stack(pixels))).double()
        read = source.component("text_encoder").module(torch.from_numpy(ids)).double()
        similarity = images @ read.T
        return similarity.numpy(), torch.softmax(source.logit_scale * similarity, dim=1).numpy()


def test_the_pack_holds_torchs_answers(source: Checkpoint, base: Bundle) -> None:
    golden, task = base.golden(), base.manifest.tasks["classify"]
    assert golden.answers is not None
    assert isinstance(task, ContrastiveTask)
    assert (set(base.manifest.spaces), task.scale) == ({source.space()}, Scale(*[source.logit_scale] * 2))
    assert (task.labels, task.template) == (LABELS, "a photo of a {label}")
    labels = [f"a photo of a {label}" for label in LABELS]
    texts = [text.text for text in golden.texts]
    for asked, name in ((texts, "match"), (labels, "classify")):
        rows = golden.answers[name]
        similarity, probability = by_torch(source, base, asked)
        assert [row.inputs for row in rows] == [{"image": number} for number in range(6)]
        np.testing.assert_allclose(similarities_of(rows), similarity, atol=2e-6)
        np.testing.assert_allclose([row.probability for row in rows], probability, atol=2e-5)


def similarities_of(rows: tuple[Scores, ...]) -> np.ndarray:
    return np.array([row.similarity for row in rows], np.float64)


def test_without_labels_there_is_nothing_to_classify(source: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_base(source, dataset(tmp_path / "data", ()), tmp_path / "out")
    opened = Bundle.open(tmp_path / "out")
    answers, task = opened.golden().answers, opened.manifest.tasks["classify"]
    assert answers is not None
    assert isinstance(task, ContrastiveTask)
    assert (task.labels, answers["classify"], len(answers["match"])) == ((), (), 6)


def labels_read(source: Checkpoint) -> np.ndarray:
    ids = (
        Tokenizer(source.tokenizer_json, source.tokenizer)
        .encode(label_texts("a photo of a {label}", LABELS))
        .ids
    )
    with torch.inference_mode():
        return np.asarray(source.component("text_encoder").module(torch.from_numpy(ids)).numpy())


def off_by(golden: Golden, labels: np.ndarray, noise: float) -> Outputs:
    """What a variant would give whose embeddings are off by so much."""
    exact, rng = expected_outputs(golden), np.random.default_rng(0)

    def near(rows: np.ndarray) -> np.ndarray:
        moved = rows + noise * rng.normal(size=rows.shape)
        return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)

    text = np.concatenate([near(exact[TEXT]), near(labels)])
    texts = (*exact.texts, *label_texts("a photo of a {label}", LABELS))
    return Outputs({IMAGE: near(exact[IMAGE]), TEXT: text}, texts)


def judged(source: Checkpoint, base: Bundle, variant: str, got: Outputs) -> Golden:
    """The pack with the tolerances of one variant that gave that."""
    engine, precision = variant.split("-")
    spec = VariantSpec.of(Engine(engine), Precision(precision), Status.EXPERIMENTAL, {})
    return with_tolerances(base, task_of(source.contract, source), {variant: got}, {variant: spec})


@pytest.mark.parametrize("noise", [0.0, 1e-3, 2e-2, 0.3])
def test_a_variants_answers_keep_their_tolerance_and_little_more_is_allowed(
    source: Checkpoint, base: Bundle, noise: float
) -> None:
    got = off_by(base.golden(), labels_read(source), noise)
    golden = judged(source, base, "onnx-int8", got)
    assert golden.answers is not None
    for name, texts in (("match", got[TEXT][:12]), ("classify", got[TEXT][12:])):
        limit = golden.tolerance["onnx-int8"].answers[name]
        off = {"similarity": 0.0, "probability": 0.0}
        for expected, seen in zip(golden.answers[name], got[IMAGE], strict=True):
            similarity = similarities(seen, texts)
            probability = probabilities(similarity, source.logit_scale)
            assert _wrong_scores(similarity, probability, expected, limit) is None
            off["similarity"] = max(
                off["similarity"], np.abs(similarity - similarities_of((expected,))[0]).max()
            )
            off["probability"] = max(off["probability"], np.abs(probability - expected.probability).max())
        assert limit.similarity == pytest.approx(2 * off["similarity"] + 0.005, abs=1.1e-4)
        margin = 0.005 * source.logit_scale / 2
        assert limit.probability == pytest.approx(min(1.0, 2 * off["probability"] + margin), abs=1.1e-4)


def test_fp32_has_next_to_no_margin(source: Checkpoint, base: Bundle) -> None:
    exact = off_by(base.golden(), labels_read(source), 0.0)
    for limit in judged(source, base, "onnx-fp32", exact).tolerance["onnx-fp32"].answers.values():
        assert limit.similarity <= 2.1e-4
        assert limit.probability <= 0.001


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_variant_that_answers_nan_has_a_tolerance_all_the_same(
    source: Checkpoint, base: Bundle, broken: float
) -> None:
    got = off_by(base.golden(), labels_read(source), 0.0)
    golden = judged(
        source, base, "onnx-fp16", Outputs({**got.arrays, IMAGE: np.full_like(got[IMAGE], broken)}, got.texts)
    )
    for limit in golden.tolerance["onnx-fp16"].answers.values():
        assert (limit.similarity, limit.probability) == (2.0, 1.0)
    assert Golden.from_json(golden.to_json(), base.manifest) == golden


def test_answers_that_are_shown_are_to_the_same_texts_for_every_model(
    source: Checkpoint, base: Bundle
) -> None:
    golden, task, tasks = base.golden(), task_of(source.contract, source), base.manifest.tasks
    assert list(tasks) == ["classify", "match"]  # the labels are not what is shown
    exact = TorchRunner(source.components, Encoder.of_contract(source.contract))
    inputs = GoldenInputs(
        [base.file(image.file) for image in golden.images], [text.text for text in golden.texts]
    )
    found = task.golden.shown(golden, task.golden.outputs(exact, inputs, tasks), tasks)
    expected = task.golden.shown(golden, expected_outputs(golden), tasks)
    assert [each.image for each in found] == list(range(6))
    probability = [each.probability for each in expected]
    assert np.ptp(probability, axis=1).min() > 1e-3
    np.testing.assert_allclose([each.probability for each in found], probability, atol=1e-5)
    similarity = by_torch(source, base, [f"caption {k}" for k in range(6)])[0]
    for each, row in zip(expected, similarity, strict=True):
        assert each.texts == tuple(f"caption {k}" for k in range(6))
        np.testing.assert_allclose(each.probability, probabilities(row, source.logit_scale), atol=1e-5)
