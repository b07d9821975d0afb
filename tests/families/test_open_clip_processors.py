"""Pixels and ids of open_clip's models beside open_clip's own transform and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer as Plain

from pocketvl.data.dataset import Dataset
from pocketvl.errors import SourceError
from pocketvl.families import read_contract
from pocketvl.families.base import Contract
from pocketvl.families.folders.open_clip_tokenizer import simple_tokenizer_json
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Canonical
from pocketvl_runtime.text import Tokenizer
from tests.families.edits import set_in
from tests.families.tiny_open_clip import PREPROCESS, TEXT_LENGTH, VIT, make_tiny_open_clip
from tests.families.wordpiece import save_wordpiece, wordpiece_tokenizer
from tests.pillow import rows_first

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pocketvl[open-clip]")

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
HARD = (
    "a photo of a cat",
    "  two   spaces,\ttabs and\nnew lines ",
    "UPPER Case, Title Case",
    "it's we're I'll don't IT'S",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m",
    "1234567890 3.14 12,000 $5",
    "!? ... --- (a) [b] {c} <d> #e @f",
    "\u732b\u3068\u72ac \u043a\u043e\u0442 \u0642\u0637 \u0e41\u0e21\u0e27",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "zero\u200bwidth\u00a0space\u00ad soft",
    "longwordwithoutanyspaceinit" * 4,
    "<start_of_text> a <END_OF_TEXT> b",
    "\u201cquoted\u201d, \u2018so\u2019, a dog\u2019s life, \u02bcOkina",
    "bell\x07 and\ufeff joined \x00 \x1b",
    "!" * 30,
    "a " * 100,
)
CLEANED = {
    "HTML entities": "Tom &amp; Jerry",
    "a broken encoding": "l\u00e2\u20ac\u2122humanit\u00c3\u00a9",
    "ligatures": "\ufb01ne",
    "full width": "\uff23\uff21\uff34",
    "a sigma that ends a word": "\u039f\u0394\u039f\u03a3",
}
"""What open_clip changes in a text and no tokenizer.json does, as the note says; last, what lower() knows."""


def ids_of(contract: Contract, texts: list[str]) -> np.ndarray[Any, Any]:
    return Tokenizer(contract.tokenizer_json, contract.tokenizer).encode(texts).ids


def test_ids_of_hard_texts_are_open_clips(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model")
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")(list(HARD)).numpy()
    contract = read_contract(folder)
    for text, wanted, found in zip(HARD, theirs, ids_of(contract, list(HARD)), strict=True):
        assert found.tolist() == wanted.tolist(), text
    assert any("are not cleaned of broken encodings and HTML entities" in note for note in contract.notes)


def test_every_word_of_its_vocabulary_and_random_texts_have_open_clips_ids(tmp_path: Path) -> None:
    theirs = open_clip.tokenizer.SimpleTokenizer()
    ours = Plain.from_str(simple_tokenizer_json(tmp_path).decode())
    random = np.random.default_rng(0)
    words = [theirs.decode([number]) for number in random.permutation(49406)[:6000]]
    letters = [chr(number) for number in (*range(32, 127), *range(0xC0, 0x250), *range(0x3B1, 0x3C9))]
    texts = [" ".join(random.choice(words, 5)) for _ in range(1500)]
    texts += ["".join(random.choice(letters, 30)) for _ in range(1000)]
    clean = [text for text in texts if theirs.clean_fn(text) == " ".join(text.split()).lower()]
    assert len(clean) > 1500  # ftfy takes some for broken encodings
    for text, found in zip(clean, ours.encode_batch(clean), strict=True):
        assert found.ids[1:-1] == theirs.encode(text), text


@pytest.mark.parametrize("kind", CLEANED)
def test_what_open_clip_cleans_and_no_tokenizer_json_does(kind: str, tmp_path: Path) -> None:
    text = CLEANED[kind]
    theirs = open_clip.tokenizer.SimpleTokenizer()
    ours = Plain.from_str(simple_tokenizer_json(tmp_path).decode())
    assert ours.encode(text).ids[1:-1] != theirs.encode(text)
    assert ours.encode(theirs.clean_fn(text)).ids[1:-1] == theirs.encode(text)


def test_a_tokenizer_of_transformers_in_the_folder_is_read_as_open_clip_reads_it(tmp_path: Path) -> None:
    model = json.loads(json.dumps(VIT))
    model["text_cfg"] |= {"hf_tokenizer_name": "some/bert", "vocab_size": 300, "pool_type": "last"}
    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=model)
    save_wordpiece(wordpiece_tokenizer(300), folder, TEXT_LENGTH)
    contract = read_contract(folder)
    assert contract.tokenizer.canonicalize == (Canonical.COLLAPSE_SPACES,)
    texts = ["a photo of a red circle", "  two   cats\tand a dog ", "the thing " * 20]
    wanted = open_clip.get_tokenizer(f"local-dir:{folder}")(texts).numpy()
    assert ids_of(contract, texts).tolist() == wanted.tolist()
    set_in(
        "open_clip_config.json", "model_cfg", "text_cfg", "tokenizer_kwargs", to={"strip_sep_token": True}
    )(folder)
    with pytest.raises(SourceError, match="tokenizer_kwargs: strip_sep_token is True"):
        read_contract(folder)


def transform_of(folder: Path) -> Any:
    """open_clip's, without what the graph does."""
    _, _, made = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return made


def pixels_of(transform: Any, image: Image.Image, contract: Contract) -> np.ndarray[Any, Any]:
    """What open_clip's transform gives, as the pixels that it normalised."""
    spec = contract.preprocess.normalized_in_graph
    with rows_first():
        made = transform(image)
    values = made.permute(1, 2, 0) * torch.tensor(spec.std) + torch.tensor(spec.mean)
    found = (values * 255).numpy()
    assert np.abs(found - found.round()).max() < 1e-2
    rounded: np.ndarray[Any, Any] = found.round().astype(np.uint8)
    return rounded


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
def test_pixels_of_pictures_of_any_shape_are_open_clips(
    resize_mode: str, interpolation: str, tmp_path: Path
) -> None:
    given = {
        **PREPROCESS,
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "mean": 0.5,
        "fill_color": 0,
    }
    folder = make_tiny_open_clip(tmp_path / "model", preprocess_cfg=given)
    contract, transform = read_contract(folder), transform_of(folder)
    random = np.random.default_rng(0)
    for _ in range(40):
        height, width = random.integers(5, 200, 2)
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        np.testing.assert_array_equal(
            load_pixels(image, contract.preprocess),
            pixels_of(transform, image, contract),
            err_msg=f"{image.size}",
        )


def test_a_size_that_the_model_has_not_is_noted(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model", preprocess_cfg={**PREPROCESS, "size": 224, "unknown": 1})
    notes = read_contract(folder).notes
    assert "preprocess_cfg.size is [224]; vision_cfg.image_size, 32, counts, as in open_clip" in notes


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photographs at {PHOTOS}")
def test_pixels_and_ids_of_photographs_are_open_clips(tmp_path: Path) -> None:
    model = json.loads(json.dumps(VIT))
    model["vision_cfg"] |= {"image_size": 224, "patch_size": 32}
    model["text_cfg"]["context_length"] = 77
    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=model)
    contract, transform, dataset = read_contract(folder), transform_of(folder), Dataset.open(PHOTOS)
    assert len(dataset) == 150
    for sample in dataset.samples:
        with Image.open(sample.image) as image:
            wanted = pixels_of(transform, image, contract)
        np.testing.assert_array_equal(load_pixels(sample.image, contract.preprocess), wanted)
    texts = sorted({f"a photo of a {sample.label}." for sample in dataset.samples})
    texts += [text for sample in dataset.samples for text in sample.captions]
    wanted = open_clip.get_tokenizer(f"local-dir:{folder}")(texts).numpy()
    assert ids_of(contract, texts).tolist() == wanted.tolist()
