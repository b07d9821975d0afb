"""The golden pack of a model that answers questions: logits, answers, and how far variants may be off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.pipelines.bundle import is_bundle_of, write_base
from pocketvl.pipelines.golden_inputs import HARD_STRINGS
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks import task_of
from pocketvl.tasks.golden import GoldenInputs, expected_outputs
from pocketvl.tasks.outputs import Outputs
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Activation, LabelsTask
from pocketvl_runtime.obstacles import task_obstacle
from pocketvl_runtime.text import Tokenizer
from tests.families.vilt_folder import make_vilt_folder

LOGITS = "fusion.logits"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(make_vilt_folder(tmp_path_factory.mktemp("source") / "vilt"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("questions")
    write_tabletop(root, seed=3, count=8, size=64)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def base(source: Checkpoint, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("base")
    write_base(source, data, root)
    return Bundle.open(root)


def by_torch(source: Checkpoint, base: Bundle) -> np.ndarray:
    """Logits [12, labels]: text k, asked about image k mod 6."""
    golden = base.golden()
    pixels = [load_pixels(base.file(golden.images[k % 6].file), source.preprocess) for k in range(12)]
    texts = [text.text for text in golden.texts]
    ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts).ids
    with torch.inference_mode():
        found = source.component("fusion").module(torch.from_numpy(np.stack(pixels)), torch.from_numpy(ids))
    return np.asarray(found.numpy())


def test_the_pack_holds_torchs_logits_and_answers(source: Checkpoint, data: Dataset, base: Bundle) -> None:
    base.verify()
    golden, logits = base.golden(), by_torch(source, base)
    texts = [text.text for text in golden.texts]
    assert texts[:6] == list(dict.fromkeys(each.text for each in questions_of(data)))[:6]
    assert tuple(texts[6:]) == HARD_STRINGS
    pairs = [{"image": k % 6, "text": k} for k in range(12)]
    assert list(golden.outputs) == [LOGITS]
    assert [each.inputs for each in golden.outputs[LOGITS]] == pairs
    np.testing.assert_allclose([each.values for each in golden.outputs[LOGITS]], logits, atol=2e-5)
    assert golden.answers is not None
    assert [each.inputs for each in golden.answers["ask"]] == pairs
    probability = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    np.testing.assert_allclose([each.probability for each in golden.answers["ask"]], probability, atol=2e-5)
    assert all(each.similarity is None for each in golden.answers["ask"])


def test_the_manifest_has_its_task_and_answers_name_their_label(source: Checkpoint, base: Bundle) -> None:
    labels = source.contract.label_head.labels
    assert base.manifest.tasks == {"ask": LabelsTask(LOGITS, labels, Activation.SOFTMAX)}
    assert task_obstacle(base.manifest, "ask") is None
    answers = (base.golden().answers or {})["ask"]
    likeliest = by_torch(source, base).argmax(1)
    assert [each.answer for each in answers] == [labels[index] for index in likeliest]


def test_a_bundle_is_told_from_that_of_another_checkpoint(
    source: Checkpoint, base: Bundle, tmp_path: Path
) -> None:
    assert is_bundle_of(base, source)
    other = open_checkpoint(make_vilt_folder(tmp_path / "other", seed=1))
    assert not is_bundle_of(base, other)
    labels = json.loads((source.contract.folder / "config.json").read_text())["id2label"]
    renamed = make_vilt_folder(tmp_path / "renamed")
    config = json.loads((renamed / "config.json").read_text())
    config["id2label"] = {**labels, "0": labels["1"], "1": labels["0"]}
    (renamed / "config.json").write_text(json.dumps(config))
    assert not is_bundle_of(base, open_checkpoint(renamed))


@pytest.mark.parametrize("noise", [1e-3, 0.3])
def test_a_variants_answers_keep_their_tolerance_and_little_more_is_allowed(
    noise: float, source: Checkpoint, base: Bundle
) -> None:
    golden, cases, tasks = base.golden(), task_of(source.contract, source).golden, base.manifest.tasks
    exact = expected_outputs(golden)
    moved = exact[LOGITS] + noise * np.random.default_rng(0).normal(size=exact[LOGITS].shape)
    got = Outputs({LOGITS: moved.astype(np.float32)}, exact.texts)
    inputs = GoldenInputs(
        [base.file(image.file) for image in golden.images], [text.text for text in golden.texts]
    )
    limit = cases.tolerance(golden, inputs, got, tasks, is_exact=False)
    assert golden.answers is not None
    answers = cases.answers(inputs, got, tasks)["ask"]
    pairs = zip(golden.answers["ask"], answers, strict=True)
    off = max(np.abs(np.subtract(a.probability, b.probability)).max() for a, b in pairs)
    assert off > 0
    assert limit.answers["ask"].probability == pytest.approx(min(1, 2 * off + 0.005), abs=1.1e-4)
    cosines = (exact[LOGITS] * moved).sum(1) / np.linalg.norm(exact[LOGITS], axis=1)
    cosines /= np.linalg.norm(moved, axis=1)
    assert cosines.min() - 0.031 < limit.ports[LOGITS].cosine_min < cosines.min()


def test_answers_are_shown_with_the_question_likeliest_first(source: Checkpoint, base: Bundle) -> None:
    golden, cases, tasks = base.golden(), task_of(source.contract, source).golden, base.manifest.tasks
    shown = cases.shown(golden, expected_outputs(golden), tasks)
    assert [each.image for each in shown] == list(range(6))
    labels, logits = source.contract.label_head.labels, by_torch(source, base)
    for k, each in enumerate(shown):
        assert each.texts[0] == f"{golden.texts[k].text} {labels[int(logits[k].argmax())]}"
        assert list(each.probability) == sorted(each.probability, reverse=True)
    negated = Outputs({LOGITS: -expected_outputs(golden)[LOGITS]}, ())
    for expected, other in zip(shown, cases.shown(golden, negated, tasks), strict=True):
        assert other.texts == expected.texts
        assert list(other.probability) == sorted(other.probability)
