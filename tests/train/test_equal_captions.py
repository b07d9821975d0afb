"""Equal captions in a batch are true of each other's images: none of them is a false one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.tasks.contrastive_training import ContrastiveTraining
from pocketvl.tasks.training import Batches
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.contrast import contrastive_loss, sigmoid_loss
from pocketvl.train.samples import PairSamples
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from pocketvl_runtime.manifest import Activation
from tests.data.sources import picture, write
from tests.families.tiny import make_tiny_clip
from tests.tasks.worlds import pair_samples

SCALE = torch.tensor(7.0)
GROUPS = torch.tensor([0, 1, 0, 2, 0])
SETTINGS = TrainingSettings(
    (Phase(3),), batch_size=6, losses=LossWeights(response=0, embedding=0, contrast=1)
)


def rows(*shape: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=-1)


def batch(negatives: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Five images; the texts of a group are equal."""
    texts = rows(5, 1 + negatives, 6, seed=2)
    texts[[2, 4], 0] = texts[0, 0]
    return rows(5, 6, seed=1), texts


def test_the_softmax_loss_is_the_mean_over_all_true_texts_and_images() -> None:
    """Written out as UniCL's equations have it: minus the mean log probability over the positives."""
    image, texts = batch()
    among, hard = 7 * image @ texts[:, 0].T, 7 * torch.einsum("bd,bkd->bk", image, texts[:, 1:])
    positives = {0: [0, 2, 4], 1: [1], 2: [0, 2, 4], 3: [3], 4: [0, 2, 4]}
    to_text, to_image = 0.0, 0.0
    for i, true in positives.items():
        whole = torch.cat([among[i], hard[i]]).logsumexp(0)
        to_text -= float(torch.stack([among[i, j] - whole for j in true]).mean()) / 5
        to_image -= float(torch.stack([among[j, i] - among[:, i].logsumexp(0) for j in true]).mean()) / 5
    found = contrastive_loss(image, texts, SCALE, GROUPS)
    assert float(found) == pytest.approx((to_text + to_image) / 2, rel=1e-5)


def test_the_sigmoid_loss_takes_every_pair_of_a_group_as_one_that_fits() -> None:
    image, texts = batch()
    logits = 7 * image @ texts[:, 0].T - 1
    plain = sigmoid_loss(image, texts, SCALE, -1.0)
    pairs = [(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2)]
    # log(1 + e^x) becomes log(1 + e^-x), which is less by x
    expected = float(plain) - float(sum(logits[pair] for pair in pairs)) / 5
    assert float(sigmoid_loss(image, texts, SCALE, -1.0, GROUPS)) == pytest.approx(expected, rel=1e-5)


def test_where_all_captions_differ_groups_change_nothing() -> None:
    image, texts = rows(5, 6, seed=1), rows(5, 3, 6, seed=2)
    apart = torch.arange(5)
    assert torch.equal(
        sigmoid_loss(image, texts, SCALE, -1.0, apart), sigmoid_loss(image, texts, SCALE, -1.0)
    )
    found = contrastive_loss(image, texts, SCALE, apart)
    assert float(found) == pytest.approx(float(contrastive_loss(image, texts, SCALE)), rel=1e-5)


def test_images_of_one_caption_can_be_right_together() -> None:
    """Two images exactly at their shared caption: nothing pushes them off it."""
    texts = torch.eye(3)[[0, 0, 1]][:, None]
    image = torch.eye(3)[[0, 0, 1]].requires_grad_()
    scale = torch.tensor(60.0)
    torch.autograd.backward(contrastive_loss(image, texts, scale, torch.tensor([0, 0, 1])))
    assert image.grad is not None
    assert float(image.grad.abs().max()) < 1e-6
    plain = contrastive_loss(image.detach(), texts, scale)
    assert float(plain) == pytest.approx(2 * np.log(2) / 3, abs=1e-5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("equal") / "clip")


def test_a_batch_without_equal_captions_is_trained_as_ever(clip: Path) -> None:
    """No groups are handed on, so that the arithmetic is the same to the last bit."""
    task = training_task(open_checkpoint(clip).contract)
    batches = Batches(task, pair_samples(), None, SETTINGS, SETTINGS.phases[0])
    assert all(batches(step).labels is None for step in range(3))


def test_equal_captions_are_found_in_each_step_and_reach_the_loss(clip: Path) -> None:
    checkpoint, plain = open_checkpoint(clip), pair_samples()
    task = training_task(checkpoint.contract)
    assert isinstance(task, ContrastiveTraining)
    ids = plain.ids.copy()
    ids[1] = ids[0]  # another text that the tokenizer writes alike
    samples = replace(plain, ids=ids, index=[(row % 3, *others) for row, *others in plain.index])
    batches = Batches(task, samples, None, replace(SETTINGS, batch_size=18), SETTINGS.phases[0])
    shown = batches(0)
    assert shown.labels is not None
    assert shown.labels.tolist() == [int(shown.labels[row % 3]) for row in range(18)]
    assert len(set(shown.labels.tolist())) == 2
    for activation in Activation:
        asked = replace(task, activation=activation)
        outputs = {"image_encoder": rows(18, 6, seed=3), "text_encoder": rows(36, 6, seed=4)}
        texts = outputs["text_encoder"].view(2, 18, 6).transpose(0, 1)
        known = (outputs["image_encoder"], texts, torch.tensor(asked.logit_scale))
        with_groups, plain_loss = (
            contrastive_loss(*known, groups)
            if activation is Activation.SOFTMAX
            else sigmoid_loss(*known, 0.0, groups)
            for groups in (torch.tensor([row % 3 == 2 for row in range(18)]), None)
        )
        found = asked.label_losses(outputs, shown.labels)["contrast"]
        assert float(found) == pytest.approx(float(with_groups), rel=1e-5)
        assert float(found) != pytest.approx(float(plain_loss), rel=1e-2)


def test_a_label_stands_for_a_missing_caption(clip: Path, tmp_path: Path) -> None:
    labels = ["cat", "dog", "cat", None]
    for k in range(4):
        write(tmp_path / f"{k}.jpg", picture(k))
    told = [{"image": f"{k}.jpg", **({"label": label} if label else {})} for k, label in enumerate(labels)]
    write_samples(tmp_path, told[:3])
    dataset, head = Dataset.open(tmp_path), open_checkpoint(clip).contract.head
    PairSamples.check(dataset)
    texts, index = PairSamples.select(dataset, head)
    assert texts == ["a photo of a cat", "a photo of a dog"]
    assert index == [[0], [1], [0]]
    write_samples(tmp_path, told)
    with pytest.raises(DataError, match="a caption or a label for every image"):
        PairSamples.check(Dataset.open(tmp_path))
    write_samples(tmp_path, told[:1] + told[2:3])
    with pytest.raises(DataError, match="two different captions or labels"):
        PairSamples.check(Dataset.open(tmp_path))
