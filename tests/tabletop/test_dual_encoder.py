"""Training a tiny ConvNeXt with a BERT on the tabletop world: the phases of the CLIP, another model."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import VisionTextDualEncoderModel

from pocketvl.errors import RecipeError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.dual_encoder import ConvNextImageEncoder
from pocketvl.tabletop.clip import EncoderSettings
from pocketvl.tabletop.dual_encoder import (
    ConvNextPatchHeadEncoder,
    ConvNextSettings,
    DualEncoderSettings,
    build_dual_encoder,
)
from pocketvl.tabletop.pool import PoolSettings
from pocketvl.tabletop.train import read_training_recipe
from pocketvl.tabletop.training import (
    PhaseSettings,
    TabletopDualSettings,
    preprocess_spec,
    train_tabletop_clip,
)
from pocketvl.train.settings import LoopSettings, Precision

MODEL = DualEncoderSettings(
    image_size=32,
    image=ConvNextSettings(patch_size=4, channels=(16, 24), depths=(1, 1)),
    text=EncoderSettings(32, 1, 2),
    text_length=32,
    vocab_size=512,
    embedding_dim=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def _settings(steps: int, **joint: PhaseSettings) -> TabletopDualSettings:
    loop = LoopSettings(steps=steps, learning_rate=1e-3, warmup_steps=2, save_every=3)
    phase = PhaseSettings(batch_size=8, negatives=3, loop=loop)
    scenes = PoolSettings(seed=1, count=40, paint_size=32)
    return TabletopDualSettings(model=MODEL, scenes=scenes, oracle=phase, text=phase, image=phase, **joint)


def _joint() -> PhaseSettings:
    loop = LoopSettings(steps=3, learning_rate=1e-3, warmup_steps=1, precision=Precision.BFLOAT16)
    return PhaseSettings(batch_size=8, negatives=1, loop=loop)


def test_losses_go_down_and_the_folder_opens(tmp_path: Path) -> None:
    reports = train_tabletop_clip(_settings(30, joint=_joint()), tmp_path / "dual", tmp_path / "work")
    assert list(reports) == ["oracle", "text", "image", "joint"]
    for name, loss in (("text", "text"), ("image", "scene")):
        seen = [row[loss] for row in reports[name].losses[:24]]  # before the means to an end fade out
        assert np.mean(seen[-5:]) < 0.9 * np.mean(seen[:5]), (name, loss)
    source = open_checkpoint(tmp_path / "dual")
    assert source.contract.family == "vision-text-dual-encoder"
    assert (source.preprocess.height, source.tokenizer.max_length, source.embedding_dim) == (32, 32, 16)
    pixels = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    model = VisionTextDualEncoderModel.from_pretrained(tmp_path / "dual", dtype=torch.float32)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(
            model.get_image_features(torch.full((1, 3, 32, 32), -1.0)).pooler_output, dim=-1
        )
        found = source.component("image_encoder").module(pixels)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_training_stopped_in_the_image_phase_ends_in_the_same_bytes(tmp_path: Path) -> None:
    train_tabletop_clip(_settings(6), tmp_path / "whole", tmp_path / "whole.work")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("image") and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tabletop_clip(_settings(6), tmp_path / "broken", tmp_path / "broken.work", stop)
    train_tabletop_clip(_settings(6), tmp_path / "broken", tmp_path / "broken.work")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_places_are_given_row_by_row() -> None:
    torch.manual_seed(0)
    encoder = ConvNextPatchHeadEncoder(
        ConvNextImageEncoder(build_dual_encoder(MODEL), preprocess_spec(MODEL)), 24
    )
    encoder.train(False)
    pixels = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    pixels[:, 2:6, 26:30] = 255  # top right, in the last of the first row's 4 places
    with torch.no_grad():
        lit, dark = encoder(pixels), encoder(torch.zeros_like(pixels))
    assert [value.shape for value in lit] == [(1, 16), (1, 16, 22), (1, 16, 16)]
    assert (lit[2] - dark[2])[0].norm(dim=-1).argmax() == 3


def test_the_shipped_recipe_is_of_about_the_promised_size() -> None:
    settings = read_training_recipe("tabletop-convnext").model
    assert isinstance(settings, DualEncoderSettings)
    with torch.device("meta"):
        model = build_dual_encoder(settings)
    assert 1.1e6 < sum(each.numel() for each in model.parameters()) < 1.3e6


def test_it_does_not_grow_from_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="only a CLIP grows"):
        train_tabletop_clip(_settings(6), tmp_path / "out", tmp_path / "work", start=tmp_path / "start")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[model]\nkind = "blip"', "model.kind: 'blip' is none of clip, dual-encoder"),
        ('[model]\nkind = "dual-encoder"\npatch_size = 4', r"model\.patch_size: there is no such key"),
        ('[model]\nkind = "dual-encoder"\nimage = { width = 3 }', r"model\.image\.width"),
        (
            '[model]\nkind = "dual-encoder"\nimage = { patch_size = 4, channels = [8], depths = [1, 1] }',
            "one number for each stage",
        ),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=complaint):
        read_training_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("depths = [3, 3]", "depths = [3, 0]", r"model\.image\.depths\.1: .* 1, not 0"),
        ("channels = [64, 144]", "channels = [-64, 144]", r"model\.image\.channels\.0"),
        ("patch_size = 4", "patch_size = 41", "patch_size: 41 pixels are more than the 40"),
    ],
)
def test_values_that_cannot_be_name_the_key(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    shipped = resources.files("pocketvl.recipes") / "training" / "tabletop-convnext.toml"
    text = shipped.read_text("utf-8")
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(RecipeError, match=complaint):
        read_training_recipe(str(tmp_path / "bad.toml"))
