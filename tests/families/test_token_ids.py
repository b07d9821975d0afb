"""Every key of a tokenizer's files leaves the ids those of transformers, or is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.folders.tokenizer import read_tokenizer
from pocketvl_runtime.manifest import Padding, TextProcessor
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import BOS, EOS, TEXT_LENGTH, make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual

CLIP_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "clip_tokenizer"
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
TEXTS = [
    *("a", "a photo of a red circle left of a small blue square", "A LARGE Striped triangle"),
    *(
        "what colour is the thing?",
        "it's two   cats,\ta dog\nand one car",
        "caf\u00e9 cafe\u0301 \u732b \U0001f600",
    ),
    *(f"a {EOS} b", f"{BOS}x", "[PAD] a [MASK] <pad>", "red" * 30, "a b c d e f g h i j k l m n o p q r s"),
]
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
ADDED_TOKEN = {"content": "<new>", **FLAGS}
# By key: values with which ids stay the same, and those that are refused.
VALUES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "bos_token": ((BOS, {"content": BOS, **FLAGS, "__type": "AddedToken"}, None), ("a", "<new>", 1, ["a"])),
    "eos_token": ((EOS, {"content": EOS, **FLAGS, "__type": "AddedToken"}, None), ("a", "<new>", 1)),
    "unk_token": ((EOS, None), ("a", "<new>")),
    "pad_token": ((EOS, BOS, None), ("<new>", 1)),
    "sep_token": ((EOS, None), ("a", "[SEP]")),
    "cls_token": ((BOS, None), ("a", "[CLS]")),
    "mask_token": ((BOS, None), ("a", "[MASK]")),
    "additional_special_tokens": (([], [BOS]), (["a"], ["<new>"])),
    "extra_special_tokens": (([], {}), (["a"], ["<new>"])),
    "added_tokens_decoder": (
        ({}, {"381": {"content": EOS, **FLAGS}}),
        ({"5": {**ADDED_TOKEN, "content": "red"}}, {"400": ADDED_TOKEN}),
    ),
    "padding_side": (("right",), ("left", "")),
    "truncation_side": (("right",), ("left",)),
    "split_special_tokens": ((False,), (True,)),
    "do_lower_case": ((True, False), ()),
    "add_prefix_space": ((True, False), ()),
    "add_bos_token": ((True, False), ()),
    "add_eos_token": ((True, False), ()),
    "clean_up_tokenization_spaces": ((True, False, None), ()),
    "tokenizer_class": (
        ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"),
        ("CLIPTokenizer", "CLIPTokenizerFast", "BertTokenizer", 1),
    ),
    "model_max_length": ((TEXT_LENGTH, 8, 1e30), ()),
    "model_input_names": ((["input_ids"],), ()),
    "errors": (("replace", "strict"), ()),
    "strip_accents": ((True, False, None), ()),
    "tokenize_chinese_chars": ((True, False), ()),
    "use_fast": ((True, False), ()),
    "name_or_path": (("openai/clip-vit-base-patch32",), ()),
    "special_tokens_map_file": (("/nowhere",), ()),
    "processor_class": (("CLIPProcessor",), ()),
    "chat_template": (("{{ messages }}",), ()),
    "max_length": ((8,), ()),
    "stride": ((0, 2), ()),
    "pad_to_multiple_of": ((None, 5), ()),
    "pad_token_type_id": ((0, 1), ()),
    "backend": (("tokenizers",), ()),
    "my_own": ((1, "a", None, {}), ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("tiny"))


def folder_with(tiny: Path, folder: Path, name: str = CONFIG, **values: Any) -> Path:
    """A copy of the tiny folder's small files with other values in one of them."""
    folder.mkdir(exist_ok=True)
    for path in tiny.glob("*.json"):
        shutil.copy(path, folder)
    path = folder / name
    stored = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**stored, **values}))
    return folder


def check_same(folder: Path, length: int) -> None:
    """Ids as the runtime makes them are those of transformers, cut and filled up."""
    read = read_tokenizer(folder)
    spec = TextProcessor(length, Padding(read.pad_id))
    mine = Tokenizer(read.content, spec).encode(TEXTS).ids
    theirs = AutoTokenizer.from_pretrained(folder)
    if theirs.pad_token is None:
        rows = theirs(TEXTS, truncation=True, max_length=length)["input_ids"]
        expected = np.array([row + [read.eos_id] * (length - len(row)) for row in rows])
    else:
        expected = theirs(
            TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="np"
        )["input_ids"]
    np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("key", VALUES)
def test_what_is_accepted_gives_transformers_ids(key: str, tiny: Path, tmp_path: Path) -> None:
    for number, value in enumerate(VALUES[key][0]):
        check_same(folder_with(tiny, tmp_path / str(number), **{key: value}), TEXT_LENGTH)


@pytest.mark.parametrize("key", [key for key, (_, refused) in VALUES.items() if refused])
def test_what_would_change_ids_is_refused_by_name(key: str, tiny: Path, tmp_path: Path) -> None:
    for number, value in enumerate(VALUES[key][1]):
        folder = folder_with(tiny, tmp_path / str(number), **{key: value})
        with pytest.raises(SourceError) as caught:
            read_tokenizer(folder)
        assert key in str(caught.value) or value == 1, (value, str(caught.value))
        assert str(folder / CONFIG) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_word_made_special_is_named_with_its_text(tiny: Path, tmp_path: Path) -> None:
    folder = folder_with(tiny, tmp_path, eos_token="a")
    with pytest.raises(
        SourceError, match=r"tokenizer_config\.json: eos_token is 'a': .*other ids of 'a photo"
    ):
        read_tokenizer(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (MAP, {"bos_token": "a"}),
        (MAP, {"additional_special_tokens": ["cat"]}),
        (ADDED, {"red": 500}),
    ],
)
def test_files_beside_it_are_looked_at(name: str, content: Any, tiny: Path, tmp_path: Path) -> None:
    """Refused, or without effect on transformers' ids, too."""
    folder = folder_with(tiny, tmp_path, name, **content)
    try:
        read_tokenizer(folder)
    except SourceError as error:
        assert name in str(error) or next(iter(content)) in str(error)
    else:
        check_same(folder, TEXT_LENGTH)


def test_all_folders_of_tests_are_accepted_with_the_same_ids(tiny: Path, tmp_path: Path) -> None:
    check_same(tiny, TEXT_LENGTH)
    check_same(make_tiny_dual(tmp_path), TEXT_LENGTH)


@pytest.mark.parametrize(
    "name", ["tabletop-clip", "tabletop-clip-teacher", "tabletop-convnext", "tabletop-vilt"]
)
def test_shipped_checkpoints_are_accepted_with_the_same_ids(name: str) -> None:
    folder = Path(__file__).parents[2] / "checkpoints" / name
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("this checkpoint is not here")
    check_same(folder, 16)


def test_clips_own_tokenizer_is_accepted_with_the_same_ids(tmp_path: Path) -> None:
    if not CLIP_TOKENIZER.is_dir():
        pytest.skip("CLIP's tokenizer is not here")
    for path in CLIP_TOKENIZER.glob("*.json"):
        shutil.copy(path, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    check_same(tmp_path, 77)


def test_without_a_tokenizer_config_tokenizer_json_says_everything(tiny: Path, tmp_path: Path) -> None:
    folder = folder_with(tiny, tmp_path)
    before = read_tokenizer(folder)
    (folder / CONFIG).unlink()
    after = read_tokenizer(folder)
    assert (after.content, after.eos_id, after.pad_id) == (before.content, before.eos_id, before.eos_id)


def test_a_source_is_refused_where_its_tokenizer_is(tiny: Path) -> None:
    path = tiny / CONFIG
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "truncation_side": "left"}))
    try:
        with pytest.raises(SourceError, match="truncation_side is 'left'; only right is supported"):
            open_checkpoint(tiny)
    finally:
        path.write_text(before)
