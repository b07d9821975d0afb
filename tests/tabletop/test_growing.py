"""A model that has grown deeper answers like the one it grew from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from transformers import CLIPModel

from pocketvl.errors import TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.tabletop.clip import ClipSettings, EncoderSettings, build_clip
from pocketvl.tabletop.growing import grow_
from pocketvl.tabletop.tokenizer import build_tokenizer
from pocketvl.tabletop.training import corpus, save_checkpoint, train_tabletop_clip
from tests.tabletop.test_clip import PHASE, TINY

SHALLOW = replace(TINY.model, image=EncoderSettings(32, 2, 2))
DEEP = replace(SHALLOW, image=EncoderSettings(32, 6, 2), text=EncoderSettings(32, 2, 2))


def _built(settings: ClipSettings, seed: int) -> CLIPModel:
    torch.manual_seed(seed)
    model = build_clip(settings)
    model.train(False)
    return model


def test_the_deeper_model_answers_the_same_and_can_learn_in_every_layer() -> None:
    start, model = _built(SHALLOW, 0), _built(DEEP, 1)
    grow_(model, start)
    pixels, ids = torch.randn(2, 3, 32, 32), torch.tensor([[2, 9, 40, 3], [2, 7, 3, 0]])
    for name, inputs in (
        ("get_image_features", {"pixel_values": pixels}),
        ("get_text_features", {"input_ids": ids}),
    ):
        with torch.no_grad():
            wanted, found = (getattr(each, name)(**inputs).pooler_output for each in (start, model))
        assert torch.allclose(wanted, found, atol=1e-5), name
    model.get_image_features(pixel_values=pixels).pooler_output.square().sum().backward()
    for layer in model.vision_model.encoder.layers:
        assert layer.mlp.fc2.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (replace(SHALLOW, image=EncoderSettings(32, 3, 2)), "from 2 to 3 layers"),
        (replace(SHALLOW, image=EncoderSettings(64, 2, 2)), "cannot grow: "),
        (replace(SHALLOW, image=EncoderSettings(32, 1, 2)), "from 2 to 1 layers"),
    ],
)
def test_what_is_not_deeper_is_refused(settings: ClipSettings, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        grow_(_built(settings, 1), _built(SHALLOW, 0))


def test_a_training_grows_from_a_checkpoint_and_from_no_other_when_it_goes_on(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(corpus(1), 512)
    save_checkpoint(_built(TINY.model, 0), tokenizer, TINY.model, tmp_path / "small")
    still = replace(PHASE, loop=replace(PHASE.loop, learning_rate=0.0))
    model = replace(TINY.model, image=EncoderSettings(32, 2, 2))
    deep = replace(TINY, model=model, oracle=None, text=None, image=None, joint=still)
    train_tabletop_clip(deep, tmp_path / "deep", tmp_path / "deep.work", start=tmp_path / "small")
    small, grown = (cast(CLIPModel, open_checkpoint(tmp_path / name).model) for name in ("small", "deep"))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted, found = (
            each.get_image_features(pixel_values=pixels).pooler_output for each in (small, grown)
        )
    assert torch.allclose(wanted, found, atol=1e-2 * float(wanted.abs().max()))
    with pytest.raises(TrainingError, match="choose another place"):
        train_tabletop_clip(deep, tmp_path / "deep", tmp_path / "deep.work", start=tmp_path / "deep")
    with pytest.raises(TrainingError, match="of another model"):
        train_tabletop_clip(deep, tmp_path / "other", tmp_path / "deep.work", start=tmp_path / "deep")
