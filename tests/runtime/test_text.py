"""Tokenizing pads and cuts as the manifest says, and tells."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import tokenizers

from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.manifest import TokenizerSpec
from pocketvl_runtime.text import Tokenizer, TruncatedTextWarning
from tests.runtime.bundles import TOKENIZER, tokenizer_json

BOS, EOS, UNKNOWN = 1, 2, 3
BALL, RED = 10, 7


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizer_json(), TOKENIZER)


def test_ids_are_padded_and_masked_whatever_the_file_says_of_padding(tokenizer: Tokenizer) -> None:
    assert json.loads(tokenizer_json())["padding"]["strategy"] == {"Fixed": 33}
    encoding = tokenizer.encode(["red ball", "Red zebra ball"])
    assert encoding.ids.dtype == encoding.mask.dtype == np.int32
    assert encoding.ids.tolist() == [
        [BOS, RED, BALL, EOS] + [0] * 8,
        [BOS, RED, UNKNOWN, BALL, EOS] + [0] * 7,
    ]
    assert encoding.mask.sum(axis=1).tolist() == [4, 5]
    assert encoding.lengths.tolist() == [4, 5]
    assert not encoding.truncated.any()


@pytest.mark.parametrize("words", range(1, 60))
def test_texts_are_cut_to_length_with_eos_kept_and_it_is_told(tokenizer: Tokenizer, words: int) -> None:
    encoding = tokenizer.encode(["ball " * words])
    assert encoding.lengths.tolist() == [words + 2]
    assert encoding.truncated.tolist() == [words > 10]
    kept = min(words, 10)
    assert encoding.ids[0].tolist() == [BOS] + [BALL] * kept + [EOS] + [0] * (10 - kept)
    assert encoding.mask.sum() == kept + 2


def test_a_cut_text_can_be_warned_of(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode(["ball", "ball " * 30])
    with pytest.warns(TruncatedTextWarning, match="text 1 has 32 tokens and the model reads 12") as caught:
        encoding.warn_if_truncated()
    assert len(caught) == 1


def test_no_warning_without_a_cut(tokenizer: Tokenizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode(["ball " * 10]).warn_if_truncated()


def test_no_texts_are_no_rows(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).ids.shape == (0, 12)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
def test_a_blank_text_is_refused_by_its_place(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InputError, match="text 1 is empty"):
        tokenizer.encode(["ball", text])


def test_text_that_is_not_unicode_is_refused_by_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"text 1 is not valid Unicode \(character 1 is '\\udcff'\)"):
        tokenizer.encode(["ball", "a\udcff"])


@pytest.mark.parametrize("texts", [[3], [None], [b"ball"]])
def test_what_is_not_a_string_is_refused(tokenizer: Tokenizer, texts: list[str]) -> None:
    with pytest.raises(InputError, match="text 0 is not a string"):
        tokenizer.encode(texts)


@pytest.mark.parametrize("texts", ["ball", b"ball", 3, {"ball"}])
def test_what_is_not_a_list_is_refused(tokenizer: Tokenizer, texts: list[str]) -> None:
    with pytest.raises(InputError, match="texts must be a list of strings"):
        tokenizer.encode(texts)


def test_a_text_of_which_nothing_is_left_is_refused() -> None:
    value = json.loads(tokenizer_json())
    value["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[^a-z ]"}, "content": ""}
    tokenizer = Tokenizer(json.dumps(value).encode(), TOKENIZER)
    with pytest.raises(InputError, match="text 0 .* holds nothing the model can read"):
        tokenizer.encode(["日本"])


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[1]"])
def test_what_is_no_tokenizer_is_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer(data, TOKENIZER)


class Panic(BaseException):
    """What the library raises where its Rust code panics: no Exception."""


class Broken:
    """A tokenizer of which one call panics."""

    def __init__(self, where: str) -> None:
        self._where, self._real = where, tokenizers.Tokenizer.from_buffer(tokenizer_json())

    def __getattr__(self, name: str) -> Any:
        if name != self._where:
            return getattr(self._real, name)

        def call(*_: object) -> NoReturn:
            raise Panic("called `Option::unwrap()`\non a `None` value")

        return call


@pytest.mark.parametrize(
    "call", ["num_special_tokens_to_add", "no_padding", "enable_truncation", "encode_batch"]
)
def test_a_panic_in_the_library_is_a_bundle_error(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(call)
    monkeypatch.setattr(tokenizers, "Tokenizer", SimpleNamespace(from_buffer=lambda _: broken))
    with pytest.raises(
        BundleError, match=r"tokenizer\.json (is not a tokenizer|fails at these texts) \(called"
    ):
        Tokenizer(b"", TOKENIZER).encode(["ball"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_library_is_none(
    stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_buffer(_: bytes) -> NoReturn:
        raise stop

    monkeypatch.setattr(tokenizers, "Tokenizer", SimpleNamespace(from_buffer=from_buffer))
    with pytest.raises(stop):
        Tokenizer(b"", TOKENIZER)


def test_an_id_beyond_int32_is_refused() -> None:
    value = json.loads(tokenizer_json())
    value["model"]["vocab"]["ball"] = 2**31
    with pytest.raises(
        BundleError, match="3 tokens up to id 2147483648, and at most 12 up to 2147483647 are"
    ):
        Tokenizer(json.dumps(value).encode(), TOKENIZER).encode(["red", "ball"])


def test_a_length_without_room_for_text_is_refused() -> None:
    with pytest.raises(BundleError, match="2 tokens leave no room beside 2 specials"):
        Tokenizer(tokenizer_json(), TokenizerSpec(length=2, pad_id=0, needs_mask=False))
