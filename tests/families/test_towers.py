"""Towers by themselves: what their folders may hold, what of them is refused, and what becomes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.compress.settings import Score
from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import family_of, open_checkpoint, read_contract
from pocketvl.network.heads import EmbeddingHead, HeadKind
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.train.method import MethodInputs
from pocketvl.train.samples import ImageSamples
from tests.families.cases import reference_tower
from tests.families.test_conformance import inputs_of, run_torch
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip
from tests.families.tiny_towers import make_tiny_tower

TOWERS = (
    "CLIPVisionModelWithProjection",
    "CLIPVisionModel",
    "CLIPTextModelWithProjection",
    "CLIPTextModel",
    "SiglipVisionModel",
    "SiglipTextModel",
)
CLASSES = pytest.mark.parametrize("architecture", TOWERS)


@CLASSES
def test_a_tower_embeds_as_its_own_class_does_and_is_saved_for_it(architecture: str, tmp_path: Path) -> None:
    folder = make_tiny_tower(tmp_path / "tower", architecture)
    opened = open_checkpoint(folder)
    inputs = inputs_of(opened.contract, 8, seed=4)
    (component,) = opened.components.values()
    found = run_torch(component, inputs)
    port = f"{component.name}.embedding"
    sees = component.name == "image_encoder"
    kind = HeadKind.IMAGE_EMBEDDING if sees else HeadKind.TEXT_EMBEDDING
    assert opened.contract.head == EmbeddingHead(port, kind)
    assert family_of(folder).head is kind
    assert found.shape[1:] == component.outputs[0].shape[1:] == (opened.embedding_dim,)
    np.testing.assert_allclose(found, reference_tower(folder, opened.contract, inputs)[port], atol=2e-5)
    opened.save(tmp_path / "saved")
    np.testing.assert_allclose(
        reference_tower(tmp_path / "saved", opened.contract, inputs)[port], found, atol=2e-5
    )


@CLASSES
def test_tensors_are_found_with_the_towers_name_before_them_and_without(
    architecture: str, tmp_path: Path
) -> None:
    folder = make_tiny_tower(tmp_path / "tower", architecture)
    path, tower = folder / "model.safetensors", "vision_model" if "Vision" in architecture else "text_model"
    stored, before = load_file(path), open_checkpoint(folder).space()
    bare = {name.removeprefix(f"{tower}."): value for name, value in stored.items()}
    own = {name: value for name, value in bare.items() if name.endswith("_projection.weight")}
    named = {f"{tower}.{name}": value for name, value in bare.items() if name not in own}
    for weights in (bare, {**named, **own}):
        save_file(weights, path, {"format": "pt"})
        assert open_checkpoint(folder).space() == before


@CLASSES
def test_a_towers_configuration_beside_the_whole_models_weights_is_enough(
    architecture: str, tmp_path: Path
) -> None:
    whole = (make_tiny_siglip if architecture.startswith("Siglip") else make_tiny_clip)(tmp_path / "whole")
    tower = make_tiny_tower(tmp_path / "tower", architecture)
    shutil.copyfile(whole / "model.safetensors", tower / "model.safetensors")
    mixed, alone = open_checkpoint(tower), make_tiny_tower(tmp_path / "alone", architecture)
    assert mixed.space() == open_checkpoint(alone).space()


def test_a_tower_embeds_what_the_whole_model_embeds(tmp_path: Path) -> None:
    whole = open_checkpoint(make_tiny_clip(tmp_path / "whole"))
    for name, architecture in (("image_encoder", TOWERS[0]), ("text_encoder", TOWERS[2])):
        tower = open_checkpoint(make_tiny_tower(tmp_path / name, architecture))
        inputs = inputs_of(tower.contract, 4, seed=5)
        np.testing.assert_array_equal(
            run_torch(tower.component(name), inputs), run_torch(whole.component(name), inputs)
        )


def test_an_image_tower_needs_no_tokenizer_and_a_text_tower_no_image_processor(tmp_path: Path) -> None:
    seeing = make_tiny_tower(tmp_path / "seeing", TOWERS[0])
    assert not (seeing / "tokenizer.json").exists()
    assert set(read_contract(seeing).processors) == {"image"}
    assert read_contract(seeing).tokenizer_json == b""
    reading = make_tiny_tower(tmp_path / "reading", TOWERS[2])
    assert not (reading / "preprocessor_config.json").exists()
    assert set(read_contract(reading).processors) == {"text"}


@pytest.mark.parametrize(
    ("architecture", "key", "value", "says"),
    [
        ("CLIPVisionModelWithProjection", "num_channels", 4, "num_channels is 4; pictures have 3"),
        ("CLIPVisionModelWithProjection", "projection_dim", 0, "projection_dim is 0"),
        ("CLIPVisionModelWithProjection", "architectures", ["CLIPVisionModel"], None),
        ("CLIPVisionModel", "architectures", None, "lack visual_projection.weight"),
        ("CLIPTextModelWithProjection", "eos_token_id", 5, r"correct eos_token_id"),
        ("CLIPTextModelWithProjection", "vocab_size", 9, "vocab_size is 9"),
        ("SiglipVisionModel", "vision_use_head", False, "without it nothing is embedded"),
        ("SiglipTextModel", "projection_size", 0, "projection_size is 0"),
    ],
)
def test_what_config_json_says_is_checked(
    architecture: str, key: str, value: object, says: str | None, tmp_path: Path
) -> None:
    folder = make_tiny_tower(tmp_path / "tower", architecture)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    if says is None:  # the projection is there, and not read
        assert open_checkpoint(folder).embedding_dim == config["hidden_size"]
        return
    with pytest.raises(SourceError, match=says) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


LEARN = "[steps.learn]\nphases = [{ steps = 2 }]\nbatch_size = 4\n"


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ('kind = "prune"\nratio = 0.5\nscore = "taylor"\n', "prune: taylor follows the loss of labels"),
        (
            'kind = "sparsify"\nsparsity = 0.5\nscore = "taylor"\n',
            "sparsify: taylor follows the loss of labels",
        ),
        (f'kind = "learn"\n{LEARN}losses = {{ contrast = 1.0 }}\n', "losses.contrast is for another kind"),
        (f'kind = "learn"\n{LEARN}losses = {{ embedding = 0.0 }}\n', "learns from embedding, relation"),
        ('kind = "prune"\nratio = 0.5\ncomponents = ["text_encoder"]\n', "text_encoder"),
        (
            'kind = "trim-vocabulary"\n',
            "trim-vocabulary: an image encoder reads no texts; leave the step out",
        ),
    ],
)
def test_a_step_that_needs_labels_or_the_other_tower_is_refused_before_anything_runs(
    step: str, says: str, tmp_path: Path
) -> None:
    folder = make_tiny_tower(tmp_path / "tower", TOWERS[0])
    (tmp_path / "recipe.toml").write_text(f"[[steps]]\n{step}")
    recipe = read_compress_recipe(str(tmp_path / "recipe.toml"))
    with pytest.raises(RecipeError, match=says) as caught:
        stages_of(folder, tmp_path, recipe)
    assert "\n" not in str(caught.value)


def test_gates_of_a_tower_say_how_far_its_embeddings_move_without_a_unit(tmp_path: Path) -> None:
    folder = make_tiny_tower(tmp_path / "tower", TOWERS[0])
    opened = open_checkpoint(folder)
    pixels = inputs_of(opened.contract, 64, seed=6)["pixels"].astype(np.uint8)
    data = ImageSamples(pixels, np.zeros((0, 0), np.int32), [])
    before = run_torch(opened.component("image_encoder"), {"pixels": pixels})
    kept = {}
    for score in (Score.GATE, Score.MAGNITUDE):
        pruned = open_checkpoint(folder)
        PruneUnits(ratio=0.5, score=score).apply(pruned, MethodInputs(data, folder))
        after = run_torch(pruned.component("image_encoder"), {"pixels": pixels})
        kept[score] = float((before * after).sum(axis=1).mean())
    assert kept[Score.GATE] > kept[Score.MAGNITUDE]
