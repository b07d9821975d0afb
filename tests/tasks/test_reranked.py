"""The task of a second head: which pairs it reads, how they are judged, and what calibration shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families import family_of, open_checkpoint, read_contract
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.pipelines.bundle import write_base
from pocketvl.select.gate import parse_gate
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks import load_task, save_task, task_class, task_of, task_of_manifest
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.encoding import Array, Encoder
from pocketvl.tasks.matching import Pair, itm_hard, log_odds, pairs_of
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.reranked import RerankedTask
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.manifest import Activation, MatchTask
from pocketvl_runtime.tasks import activated
from tests.evaluate.worlds import dataset, sample
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_blip import make_tiny_blip

LOGITS, HIDDEN = "fusion.logits", "image_encoder.hidden"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("scenes")
    write_tabletop(root, seed=5, count=12, size=40)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(make_tiny_blip(tmp_path_factory.mktemp("blip") / "blip"))


@pytest.fixture(scope="module")
def task(blip: Checkpoint) -> RerankedTask:
    found = task_of(blip.contract, blip)
    assert isinstance(found, RerankedTask)
    return found


# --- pairs and their metric --------------------------------------------------------------------------


def test_pairs_are_a_samples_caption_and_its_negatives_in_order() -> None:
    world = dataset(
        sample(0, captions=("a", "more"), negatives=("b", "c", "b")),
        sample(1),
        sample(2, captions=("a",)),
        sample(3, captions=("d",)),
        sample(4, label="e"),
    )
    assert [(pair.sample, pair.text) for pair in pairs_of(world)] == [
        (0, "a"),
        (0, "b"),
        (0, "c"),
        (2, "a"),
        (2, "d"),
        (3, "d"),
        (3, "a photo of a e"),
        (4, "a photo of a e"),
        (4, "a"),
    ]


def test_a_dataset_of_one_text_has_no_text_that_does_not_fit() -> None:
    world = dataset(sample(0, captions=("a",)), sample(1, captions=("a",)))
    assert pairs_of(world) == (Pair(0, "a"), Pair(1, "a"))


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_odds_grow_with_the_probability(activation: Activation, index: int) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3), scale=3).astype(np.float32)
    probability = activated(logits, activation)[:, index]
    odds = log_odds(logits, index, activation)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), probability, atol=1e-12)


def test_probabilities_that_are_both_1_are_told_apart() -> None:
    logits = np.array([[-40, 40], [-40, 41]], np.float32)
    low, high = log_odds(logits, 1, Activation.SOFTMAX)
    assert activated(logits, Activation.SOFTMAX)[0, 1] == activated(logits, Activation.SOFTMAX)[1, 1] == 1
    assert low < high


def test_itm_hard_is_the_share_of_captions_that_fit_better_than_all_negatives() -> None:
    kinds = ("colour", "place")
    world = dataset(
        sample(0, captions=("a",), negatives=("b", "c"), negative_kinds=kinds),
        sample(1, captions=("d",), negatives=("e", "f"), negative_kinds=kinds),
        sample(2, captions=("g",), negatives=("h", "i"), negative_kinds=kinds),
        sample(3, captions=("j",)),
    )
    rows: list[float] = [2, 1, 0, 1, 0, 2, 1, 1, np.nan, 0, 0]
    found = itm_hard(world, np.array(rows, np.float64))
    assert found.metric is Metric.ITM_HARD
    assert found.correct.tolist() == [True, False, False]  # a tie and NaN are wrong
    assert {kind: each.tolist() for kind, each in found.by_kind.items()} == {
        "colour": [True, True, False],
        "place": [True, False, False],
    }
    assert found.notes == ("itm_hard: 1 of 4 samples without caption or negatives are left out",)
    with pytest.raises(DataError, match="10 pairs matched where"):
        itm_hard(world, np.array(rows[1:], np.float64))


# --- outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_outputs_are_those_of_the_components_and_an_image_is_encoded_once(
    batch: int, blip: Checkpoint, task: RerankedTask, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: Counter[str] = Counter()
    plain = TorchRunner.run

    def counted(self: TorchRunner, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows[component] += len(next(iter(inputs.values())))
        return plain(self, component, inputs)

    monkeypatch.setattr(TorchRunner, "run", counted)
    encoder = Encoder.of_contract(blip.contract)
    told: list[int] = []
    runner = TorchRunner(blip.components, encoder, batch=batch)
    found = task.outputs(runner, data, lambda done, total, what: told.append(done))
    pairs = pairs_of(data)
    assert list(found.arrays) == ["image_encoder.embedding", "text_encoder.embedding", LOGITS]
    assert rows == {"image_encoder": 12, "text_encoder": len(found.texts), "fusion": len(pairs)}
    assert told[-1] == sum(rows.values())
    assert told == sorted(told)
    expected = by_hand(blip, encoder, data, pairs)
    np.testing.assert_allclose(found[LOGITS], expected, atol=1e-5)


def by_hand(
    blip: Checkpoint, encoder: Encoder, data: Dataset, pairs: tuple[Pair, ...]
) -> NDArray[np.float32]:
    """The logits of pairs, one by one."""
    assert encoder.tokenizer is not None
    found = []
    for pair in pairs:
        pixels = encoder.feed("image_encoder", [data.samples[pair.sample].image]).read(0, 1)["pixels"]
        ids = encoder.tokenizer.encode([pair.text]).ids
        with torch.inference_mode():
            _, hidden = blip.component("image_encoder").module(torch.from_numpy(pixels))
            found.append(blip.component("fusion").module(hidden, torch.from_numpy(ids)).numpy())
    return np.concatenate(found)


def test_metrics_are_those_of_both_heads(task: RerankedTask, data: Dataset) -> None:
    pairs = pairs_of(data)
    first = {pair.sample: index for index, pair in reversed([*enumerate(pairs)])}
    logits = np.zeros((len(pairs), 2), np.float32)
    logits[[*first.values()], 1] = 1
    logits[first[3], 1] = -1
    texts = task.texts(data)
    unit = np.eye(24, dtype=np.float32)
    embeddings = {
        "image_encoder.embedding": unit[np.arange(12) % 24],
        "text_encoder.embedding": unit[np.arange(len(texts)) % 24],
    }
    found = task.measure(data, Outputs({**embeddings, LOGITS: logits}, texts)).tasks
    assert {Metric.MATCH_HARD, Metric.ITM_HARD} <= found.keys() <= set(task.metrics)
    assert np.flatnonzero(~found[Metric.ITM_HARD].correct).tolist() == [3]


def test_calibration_shows_pairs_with_the_float_models_hidden_states(blip: Checkpoint, data: Dataset) -> None:
    encoder = Encoder.of_contract(blip.contract)
    feeds = task_class(family_of(blip.folder)).calibration_feeds(
        blip.contract, encoder, data, most_texts=1024
    )
    assert [feed.component for feed in feeds] == list(blip.contract.components)
    pairs = pairs_of(data)
    assert feeds[2].rows == len(pairs)
    shown = feeds[2].read(2, 7)
    assert list(shown) == ["hidden", "ids"]
    with torch.inference_mode():
        logits = blip.component("fusion").module(*map(torch.from_numpy, shown.values())).numpy()
    np.testing.assert_allclose(logits, by_hand(blip, encoder, data, pairs[2:7]), atol=1e-5)
    few = task_class(family_of(blip.folder)).calibration_feeds(blip.contract, encoder, data, most_texts=5)
    assert few[2].rows == 5


# --- which model has it ------------------------------------------------------------------------------


def test_a_model_of_two_heads_has_it_and_one_of_one_has_not(
    task: RerankedTask, blip: Checkpoint, tmp_path: Path
) -> None:
    assert (task.logits, task.hidden, task.positive_index) == (LOGITS, HIDDEN, 1)
    save_task(tmp_path / "task.json", task)
    assert load_task(tmp_path / "task.json") == task
    other = task_of(read_contract(make_tiny_clip(tmp_path / "clip")))
    assert type(other) is ContrastiveTask
    save_task(tmp_path / "other.json", other)
    assert load_task(tmp_path / "other.json") == other


def test_the_gate_judges_the_second_head_where_there_is_one(blip: Checkpoint, tmp_path: Path) -> None:
    both = parse_gate("", task_class(family_of(blip.folder)).metrics)
    assert both.allowance_pp[Metric.ITM_HARD] == 1.0
    first = parse_gate("", task_class(family_of(make_tiny_clip(tmp_path / "clip"))).metrics)
    assert Metric.ITM_HARD not in first.allowance_pp


def test_the_golden_pack_reads_each_text_with_one_of_the_images(
    task: RerankedTask, blip: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    write_base(blip, data, tmp_path)
    bundle = Bundle.open(tmp_path)
    assert bundle.manifest.tasks["rerank"] == MatchTask(LOGITS, 1, Activation.SOFTMAX, "match")
    assert task_of_manifest(bundle.manifest) == replace(task, second_scale=task.scale)
    golden = bundle.golden()
    assert set(golden.outputs) == {"image_encoder.embedding", "text_encoder.embedding", LOGITS}
    pairs = [row.inputs for row in golden.outputs[LOGITS]]
    assert pairs == [{"image": k % 6, "text": k} for k in range(12)]
    answers = (golden.answers or {})["rerank"]
    assert [row.inputs for row in answers] == pairs
    for row, logits in zip(answers, golden.outputs[LOGITS], strict=True):
        wanted = activated(np.array([logits.values]), Activation.SOFTMAX)[0, 1]
        assert list(row.probability) == pytest.approx([wanted], abs=1e-6)
    assert len({round(row.probability[0], 4) for row in answers}) > 6
