"""SigLIP's image processor and tokenizers give what transformers' own give."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from PIL import Image
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import T5Converter
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from pocketvl.errors import SourceError
from pocketvl.families import read_contract
from pocketvl.families.folders.image_processor import SIGLIP_PROCESSOR, read_preprocess
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Canonical, Filter, Resize, Side
from pocketvl_runtime.text import Tokenizer as RuntimeTokenizer
from tests.families.tiny_siglip import TEXT_LENGTH, make_tiny_siglip
from tests.pillow import rows_first

SIDE = 32
EXACT = {"size": {"height": SIDE, "width": SIDE}}
TEXTS = [
    "a photo of two cats",
    "  A Photo,\tof   a CAT's\nface! ",
    "It's 3.14 (or so); caf\u00e9, na\u00efve & \u00c5ngstr\u00f6m",
    "what colour is the thing below the white cross? " * 4,
    "\u732b and \u043a\u043e\u0442 \u039f\u0394\u039f\u03a3 \ufb01ne",
]


def preprocessor(folder: Path, **values: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    stored = {"image_processor_type": SIGLIP_PROCESSOR, **values}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored))
    return folder


def pictures() -> list[Image.Image]:
    numbers = np.random.default_rng(0)
    sizes = ((50, 33), (33, 71), (32, 32), (3, 2), (200, 9), (37, 64))
    return [Image.fromarray(numbers.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]


@pytest.mark.parametrize(
    "values",
    [
        EXACT,  # neither a resample, which is bicubic then, nor a do_center_crop: nothing is cropped
        {**EXACT, "resample": 2},
        {**EXACT, "resample": 3, "crop_size": {"height": 8, "width": 8}},
        {**EXACT, "resample": 1, "do_center_crop": None, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.4},
        {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": SIDE, "resample": 2},
        {"size": {"height": 40, "width": 36}, "do_center_crop": True, "crop_size": SIDE, "resample": 4},
    ],
)
def test_pixels_are_those_of_transformers(values: dict[str, object], tmp_path: Path) -> None:
    folder = preprocessor(tmp_path / "a", **values)
    spec, notes = read_preprocess(folder, SIDE, SIGLIP_PROCESSOR)
    assert notes == ()
    reference, norm = SiglipImageProcessorPil.from_pretrained(folder), spec.normalized_in_graph
    for picture in pictures():
        with rows_first():
            wanted = reference(images=picture, return_tensors="np")["pixel_values"][0]
        pixels = load_pixels(picture, spec).astype(np.float64)
        found = ((pixels * norm.rescale - norm.mean) / norm.std).transpose(2, 0, 1)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_what_is_left_out_means_what_it_means_to_the_class(tmp_path: Path) -> None:
    spec, _ = read_preprocess(preprocessor(tmp_path / "a", **EXACT), SIDE, SIGLIP_PROCESSOR)
    (step,) = spec.steps
    assert isinstance(step, Resize)
    assert step.filter is Filter.BICUBIC
    with pytest.raises(SourceError, match="do_center_crop is off and size keeps the aspect ratio"):
        read_preprocess(preprocessor(tmp_path / "b", size=SIDE), SIDE, SIGLIP_PROCESSOR)
    (tmp_path / "a" / "preprocessor_config.json").unlink()
    with pytest.raises(SourceError, match=r"neither processor_config\.json nor preprocessor_config\.json"):
        read_preprocess(tmp_path / "a", SIDE, SIGLIP_PROCESSOR)


def rewrite(folder: Path, **values: object) -> Path:
    """Changes tokenizer_config.json; a key of None goes."""
    path = folder / "tokenizer_config.json"
    stored: dict[str, Any] = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))
    return folder


def check_ids(folder: Path) -> None:
    """Ids, padding and cuts of what a device runs are those of transformers."""
    contract = read_contract(folder)
    found = RuntimeTokenizer(contract.tokenizer_json, contract.tokenizer).encode(TEXTS).ids
    wanted = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="np"
    )["input_ids"]
    np.testing.assert_array_equal(found, wanted)


def sentencepiece_folder(folder: Path, lower: bool = True) -> Path:
    """SigLIP's first tokenizer: a spiece.model, and the tokenizer.json that stands for it."""
    make_tiny_siglip(folder)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in TEXTS] * 20),
        model_writer=written,
        vocab_size=120,
        model_type="unigram",
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        user_defined_symbols=["<extra>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    _Converter(folder / "spiece.model").converted().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": lower, "model_max_length": TEXT_LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


class _Converter(T5Converter):
    def __init__(self, path: Path) -> None:
        self.vocab_file, self._extra_ids = str(path), 0
        super().__init__(self)  # type: ignore[no-untyped-call]

    def vocab(self, proto: Any) -> list[tuple[str, float]]:
        return [(piece.piece, piece.score) for piece in proto.pieces]

    def post_processor(self) -> processors.PostProcessor:
        return processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])


@pytest.mark.parametrize("lower", [True, False])
def test_siglips_tokenizer_takes_capitals_punctuation_and_spaces_away(lower: bool, tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "a", lower)
    check_ids(folder)
    spec = read_contract(folder).tokenizer
    steps = (Canonical.STRIP_PUNCTUATION, Canonical.COLLAPSE_SPACES)
    assert spec.canonicalize == ((Canonical.LOWER, *steps) if lower else steps)
    assert (spec.pad.id, spec.pad.side) == (1, Side.RIGHT)


def test_a_tokenizer_json_of_other_tokens_than_the_spiece_model_is_refused(tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "a")
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["vocab"][30:32] = stored["model"]["vocab"][31:29:-1]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(SourceError, match="transformers makes other ids of .* than tokenizer.json says"):
        read_contract(folder)
    (folder / "spiece.model").unlink()
    with pytest.raises(SourceError, match="transformers cannot read it"):
        read_contract(folder)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"tokenizer_class": "GemmaTokenizerFast", "do_lower_case": True},  # which Gemma's does not do
        {"tokenizer_class": "Siglip2Tokenizer"},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"padding_side": None},  # Gemma's own is left
    ],
)
def test_siglip_2s_tokenizer_does_what_its_class_does(values: dict[str, object], tmp_path: Path) -> None:
    folder = rewrite(make_tiny_siglip(tmp_path / "a"), **values)
    check_ids(folder)
    contract = read_contract(folder)
    lower = (
        RuntimeTokenizer(contract.tokenizer_json, contract.tokenizer).encode([TEXTS[1], TEXTS[1].lower()]).ids
    )
    assert np.array_equal(*lower) == (values.get("tokenizer_class") == "Siglip2Tokenizer")
    assert contract.tokenizer.pad.side is (Side.LEFT if "padding_side" in values else Side.RIGHT)


def test_naflex_has_a_tokenizer_of_its_own_whatever_the_file_names(tmp_path: Path) -> None:
    folder = make_tiny_siglip(tmp_path / "a", patches=16)
    check_ids(folder)
    stored, ours = (folder / "tokenizer.json").read_bytes(), read_contract(folder).tokenizer_json
    assert Tokenizer.from_buffer(ours).normalizer.normalize_str("A b") == "a\u2581b"
    assert Tokenizer.from_buffer(stored).normalizer.normalize_str("A b") == "A\u2581b"
