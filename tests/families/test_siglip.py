"""SigLIP's own: NaFlex at one grid, the pooling head, sigmoids down to the bundle, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from pocketvl import api
from pocketvl.compress.heads import prune_heads_
from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.layers.blocks import attentions
from pocketvl.lower.backends import backend_of
from pocketvl.observe.calibrate import calibrate
from pocketvl.quantize.fold import fold_
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import load_pixels, open_image
from pocketvl_runtime.manifest import Activation, ContrastiveTask, Engine
from tests.families.cases import CASES, Inputs
from tests.families.test_conformance import RUN
from tests.families.tiny_siglip import HIDDEN, PATCH_SIZE, make_tiny_siglip
from tests.pillow import rows_first

HEAD = "vision_model.head.attention"
GRIDS = ((16, 4), (16, 6), (16, 3))
"""Positions in the file, and patches a side of a square picture."""


def squares(count: int, seed: int = 0) -> list[Image.Image]:
    numbers = np.random.default_rng(seed)
    coarse = [numbers.integers(0, 256, (6, 6, 3), np.uint8) for _ in range(count)]
    return [Image.fromarray(each).resize((61, 61), Image.Resampling.BICUBIC) for each in coarse]


def naflex_embeddings(folder: Path, pictures: list[Image.Image]) -> NDArray[np.float32]:
    """Image embeddings by transformers' own processor and model."""
    from transformers import Siglip2Model
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    with rows_first():
        given = Siglip2ImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        found = Siglip2Model.from_pretrained(folder).train(False).get_image_features(**given).pooler_output
    rows: NDArray[np.float32] = torch.nn.functional.normalize(found, dim=-1).numpy()
    return rows


def our_pixels(folder: Path, pictures: list[Image.Image]) -> torch.Tensor:
    spec = read_contract(folder).preprocess
    return torch.from_numpy(np.stack([load_pixels(each, spec) for each in pictures]))


@pytest.mark.parametrize(("patches", "grid"), GRIDS)
def test_naflex_at_its_grid_is_what_transformers_gives(patches: int, grid: int, tmp_path: Path) -> None:
    folder, pictures = make_tiny_siglip(tmp_path / "a", patches=patches, grid=grid), squares(5)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.preprocess.height == grid * PATCH_SIZE
    assert any(f"{grid} x {grid} patches" in note for note in checkpoint.contract.notes)
    component = checkpoint.component("image_encoder").module
    with torch.no_grad():
        found = component(our_pixels(folder, pictures)).numpy()
    wanted = naflex_embeddings(folder, pictures)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    checkpoint.save(tmp_path / "b")
    np.testing.assert_allclose(naflex_embeddings(tmp_path / "b", pictures), wanted, atol=2e-5)
    assert open_checkpoint(tmp_path / "b").space() == checkpoint.space()


@pytest.mark.parametrize("engine", Engine)
def test_naflex_lowers(engine: Engine, tmp_path: Path) -> None:
    folder, pictures = make_tiny_siglip(tmp_path / "a", patches=16, grid=6), squares(5)
    component, pixels = open_checkpoint(folder).component("image_encoder"), our_pixels(folder, squares(5))
    fold_(component.module, pixels[:1])
    path = tmp_path / f"image{backend_of(engine).suffix}"
    backend_of(engine).export(component.module, {"pixels": pixels[:1]}, path, ["embedding"])
    feeds = ({"pixels": pixels[k : k + 1].numpy()} for k in range(5))
    np.testing.assert_allclose(
        RUN[engine](path, feeds, "embedding"), naflex_embeddings(folder, pictures), atol=1e-4
    )


def test_calibration_sees_the_pooling_heads_projections_and_its_query_is_a_constant(tmp_path: Path) -> None:
    component = open_checkpoint(make_tiny_siglip(tmp_path / "a")).component("image_encoder").module
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    before = component(pixels)
    seen = calibrate(component, [pixels[:1].numpy()])
    linears = {f"{HEAD}.{name}_proj" for name in ("q", "k", "v", "out")}
    assert linears <= set(seen.layers)
    fold_(component, pixels[:1])
    seen = calibrate(component, [pixels[:1].numpy()])
    assert set(seen.layers) & linears == linears - {f"{HEAD}.q_proj"}
    torch.testing.assert_close(component(pixels), before, atol=1e-5, rtol=0)


def test_transformers_opens_what_is_saved_and_heads_can_go(tmp_path: Path) -> None:
    folder = make_tiny_siglip(tmp_path / "a")
    checkpoint = open_checkpoint(folder)
    checkpoint.save(tmp_path / "b")
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "b"))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    (case,) = (each for each in CASES if each.name == "siglip")
    shown = np.full((1, 32, 32, 3), 99, np.uint8)
    inputs: Inputs = {"pixels": shown, "ids": np.full((1, 16), 300, np.int32)}
    for port, wanted in case.reference(folder, checkpoint.contract, inputs).items():
        assert np.array_equal(case.reference(tmp_path / "b", checkpoint.contract, inputs)[port], wanted)
    (pooling,) = (each for each in attentions(checkpoint.model) if each.name == HEAD)
    prune_heads_(checkpoint.model, pooling, [1])
    checkpoint.save(tmp_path / "c")
    again = open_checkpoint(tmp_path / "c")
    assert load_file(tmp_path / "c" / "model.safetensors")[f"{HEAD}.in_proj_weight"].shape == (3 * 16, HIDDEN)
    pixels = torch.from_numpy(shown)
    with torch.no_grad():
        found = [each.component("image_encoder").module(pixels) for each in (checkpoint, again)]
    assert torch.equal(*found)


def transformers_logits(folder: Path, images: list[Path], texts: list[str]) -> NDArray[np.float32]:
    """Logits of each picture and text, by transformers' own processor, tokenizer and model."""
    from transformers import AutoTokenizer, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    with rows_first():
        shown = SiglipImageProcessorPil.from_pretrained(folder)(
            images=[open_image(image) for image in images], return_tensors="pt"
        )
    read = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        model = SiglipModel.from_pretrained(folder).train(False)
        found = model(pixel_values=shown["pixel_values"], input_ids=read["input_ids"]).logits_per_image
    rows: NDArray[np.float32] = found.numpy()
    return rows


def spread_(folder: Path, images: list[Path], texts: list[str]) -> None:
    """Gives a folder a scale and a bias by which probabilities lie between 0.1 and 0.9."""
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    cosines = (transformers_logits(folder, images, texts) - weights["logit_bias"].item()) / np.exp(
        weights["logit_scale"].item()
    )
    scale = 2 * np.log(9) / float(np.ptp(cosines))
    weights["logit_scale"].fill_(np.log(scale))
    weights["logit_bias"].fill_(-scale * float(cosines.max() + cosines.min()) / 2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_bundle_gives_transformers_logits_and_probabilities_both_ways(tmp_path: Path) -> None:
    folder, data = make_tiny_siglip(tmp_path / "tiny"), tmp_path / "data"
    data.mkdir()
    write_tabletop(data, 21, 12, size=40)
    images = sorted((data / "images").iterdir())[:4]
    texts = ["a photo of two cats", "a red circle", "the blue square left of a star", "what is this thing?"]
    spread_(folder, images, texts)
    logits = transformers_logits(folder, images, texts)
    wanted = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert wanted.min() == pytest.approx(0.1, abs=1e-3)
    assert wanted.max() == pytest.approx(0.9, abs=1e-3)
    variants = ("onnx-fp32", "tflite-fp32")
    api.export(folder, tmp_path / "out", calibration=data, variants=variants, cache=tmp_path / "cache")
    task = Bundle.open(tmp_path / "out").manifest.tasks["match"]
    assert isinstance(task, ContrastiveTask)
    assert task.activation is Activation.SIGMOID
    assert task.scale.first == task.scale.second
    for variant in variants:
        model = load(tmp_path / "out", variant)
        reports = [model.match(image, texts).results for image in images]
        found = np.array([[each.probability for each in row] for row in reports])
        cosines = np.array([[each.similarity for each in row] for row in reports])
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(task.scale.first * cosines + task.bias, logits, atol=1e-3)
        pictures = np.stack([model.embed_image(image) for image in images])
        for column, text in enumerate(model.embed_text(texts)):  # one text, and which pictures fit
            shares = model.probabilities("match", pictures.astype(np.float64) @ text)
            np.testing.assert_allclose(shares, wanted[:, column], atol=1e-4)


def _config(section: str, **values: object) -> Callable[[Path], None]:
    return _json("config.json", lambda stored: stored[section].update(values))


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        stored = json.loads((folder / name).read_text())
        change(stored)
        (folder / name).write_text(json.dumps(stored))

    return apply


def _only_spiece(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "spiece.model")


PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_config("vision_config", vision_use_head=False), "vision_use_head is false"),
        (_config("vision_config", num_channels=1), "pictures have 3"),
        (_config("vision_config", patch_size=[8, 8]), "patch_size is .*; one positive number is needed"),
        (_config("text_config", projection_size=24), "texts are embedded in 24 numbers, pictures in 32"),
        (_config("text_config", vocab_size=100), "vocab_size is 100"),
        (_only_spiece, "spiece.model cannot be read: "),
        (_json(PROCESSOR, lambda stored: stored.update(resample=0)), "resample is 0; supported are 1 "),
        (
            _json(PROCESSOR, lambda stored: stored.update(image_processor_type="Siglip2ImageProcessor")),
            "only CLIPImageProcessor, SiglipImageProcessor, ",
        ),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    tmp_path: Path, change: Callable[[Path], None], complaint: str
) -> None:
    change(make_tiny_siglip(tmp_path / "tiny"))
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(tmp_path / "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"max_num_patches": 0}, "max_num_patches is 0, not 1 to 65536"),
        ({"max_num_patches": "all"}, "max_num_patches is 'all'"),
        ({"patch_size": 4}, "makes pictures of 16 x 16"),
        ({"image_processor_type": "SiglipImageProcessor"}, "only Siglip2ImageProcessor can be read"),
    ],
)
def test_what_is_wrong_with_a_naflex_processor_is_one_clear_line(
    values: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    folder = make_tiny_siglip(tmp_path / "tiny", patches=16)
    _json(PROCESSOR, lambda stored: stored.update(values))(folder)
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
