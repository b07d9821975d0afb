"""Tokenizing pads and cuts as the manifest says, and tells."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import tokenizers

from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.manifest import Canonical, Padding, PromptSegment, SegmentKind, Side, TextProcessor
from pocketvl_runtime.text import MAX_TEXT_CHARS, Tokenizer, TruncatedTextWarning, canonicalized
from pocketvl_runtime.tokenizer_costs import expanded_chars, read_costs
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

        def call(*_: object, **__: object) -> NoReturn:
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
        Tokenizer(tokenizer_json(), TextProcessor(2, Padding(0)))


def with_parts(**parts: Any) -> bytes:
    return json.dumps(json.loads(tokenizer_json()) | parts).encode()


def sequence(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(normalizers)}


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(*pieces: str) -> dict[str, Any]:
    kinds = {"A": {"Sequence": {"id": "A", "type_id": 0}}, "s": {"SpecialToken": {"id": "s", "type_id": 0}}}
    specials = {"s": {"id": "s", "ids": [1], "tokens": ["s"]}}
    single = [kinds[piece] for piece in pieces]
    pair = [kinds["A"], {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": "x" * 10_001}, "behavior": "Isolated", "invert": False}
CHARSMAP = base64.b64encode((4).to_bytes(4, "little") + bytes(4) + b"a" * 5_000 + b"\0b\0").decode()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"normalizer": replaced({"String": "a"}, "b" * 10_000)}, "it can make 10000 tokens"),
        ({"normalizer": replaced({"Regex": "x*"}, "b" * 10_000)}, "it can make 10001 tokens"),
        ({"normalizer": replaced({"String": ""}, "b" * 10_000)}, "it can make 10001 tokens"),
        ({"normalizer": replaced({"String": "a"}, "\ufdfa" * 1_000)}, "it can make 18000 tokens"),  # NFKD: 18
        ({"normalizer": sequence(*[replaced({"String": "a"}, "bb")] * 20)}, "it can make 1048576 tokens"),
        ({"normalizer": sequence(sequence(*[{"type": "ByteLevel"}] * 5))}, "it can make 248832 tokens"),
        ({"normalizer": {"type": "Prepend", "prepend": "b" * 9_999}}, "it can make 10000 tokens"),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}},
            "it can make 5000 tokens",
        ),
        ({"normalizer": {"type": "Invented"}}, "normalizer 'Invented' is not known; do not use this bundle"),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}},
            "one of its parts has an unknown",
        ),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 8}},
            "it can make 390625 tokens",
        ),
        ({"pre_tokenizer": {"type": "Invented"}}, "pre_tokenizer 'Invented' is not known"),
        ({"pre_tokenizer": SPLIT}, "a pattern has more than 10000 characters"),
        ({"post_processor": template("A", "A")}, "post_processor's template holds the text more than once"),
        (
            {"post_processor": {"type": "Sequence", "processors": [template("s", "A"), template("A", "A")]}},
            "post_processor's template holds the text more than once",
        ),
        ({"post_processor": template(*"s" * 12, "A")}, "12 tokens leave no room beside 12 specials"),
        ({"added_tokens": [{"id": 13, "content": "x" * 10**7}]}, "and of 10000000 in its added tokens"),
        (
            {"model": {"type": "WordLevel", "vocab": {"x" * 10**6: 0}, "unk_token": "u"}},
            "of up to 1000000 char",
        ),
        (
            {"model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "u" * 10**6}},
            "of up to 1000000 char",
        ),
        (
            {"model": {"type": "WordPiece", "max_input_chars_per_word": 1_001}},
            "max_input_chars_per_word is more",
        ),
    ],
)
def test_a_tokenizer_that_could_fill_the_memory_is_refused_before_it_is_read(
    parts: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = with_parts(**parts)
    if "no room" not in message:
        monkeypatch.setattr(tokenizers, "Tokenizer", None)
    with pytest.raises(BundleError) as caught:
        Tokenizer(content, TOKENIZER)
    assert message in str(caught.value)
    assert str(caught.value).startswith("tokenizer.json")


def test_a_key_that_stands_twice_in_a_tokenizer_is_refused() -> None:
    """The library would take the last one, whatever was checked."""
    twice = tokenizer_json().replace(b'"model"', b'"normalizer": null, "model"', 1)
    with pytest.raises(BundleError, match="key 'normalizer' stands twice"):
        Tokenizer(twice, TOKENIZER)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": sequence({"type": "NFC"}, replaced({"Regex": "\\s+"}, " "), {"type": "Lowercase"})},
        {"normalizer": {"type": "NFKD"}, "pre_tokenizer": BYTE_LEVEL},
        {"normalizer": replaced({"Regex": ""}, "b" * 20)},
        {
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "\u2581",
                "prepend_scheme": "always",
                "split": True,
            }
        },
        {"post_processor": template("s", "s", "A", "s")},
    ],
)
@pytest.mark.parametrize(
    "text", ["ab" * 50, "\ufdfa\u0130 \xbd" * 20, "\u1100\u4e00 " * 30, "\U0001f98a" * 50]
)
def test_no_text_becomes_more_tokens_than_was_counted(parts: dict[str, Any], text: str) -> None:
    content = with_parts(**parts)
    costs = read_costs(content, "it", 4096)
    specials = 3 if "post_processor" in parts else 2
    made = Tokenizer(content, TextProcessor(4096, Padding(0))).encode([text])
    normalized = tokenizers.Tokenizer.from_buffer(content)
    seen = normalized.normalizer.normalize_str(text) if normalized.normalizer is not None else text
    pieces = [(seen, (0, 0))]
    if normalized.pre_tokenizer is not None:
        pieces = normalized.pre_tokenizer.pre_tokenize_str(seen)
    bound = costs.growth * expanded_chars(text)
    assert made.lengths[0] - specials <= bound
    assert sum(len(piece) for piece, _ in pieces) <= bound + 20


def test_a_long_text_is_cut_and_a_longer_one_refused(tokenizer: Tokenizer) -> None:
    assert tokenizer.most_chars > MAX_TEXT_CHARS
    long = "ball " * (MAX_TEXT_CHARS // 5)
    assert tokenizer.encode([long]).lengths.tolist() == [MAX_TEXT_CHARS // 5 + 2]
    with pytest.raises(
        InputError, match="text 1 has 250001 characters, and at most 250000 are read; shorten it"
    ):
        tokenizer.encode(["ball", long + "x"])


def test_a_tokenizer_that_lengthens_texts_reads_shorter_ones() -> None:
    tokenizer = Tokenizer(with_parts(normalizer=replaced({"String": "z"}, "ball " * 50)), TOKENIZER)
    assert tokenizer.encode(["z"]).lengths.tolist() == [52]
    most = tokenizer.most_chars
    assert 10_000 < most < 30_000
    with pytest.raises(InputError, match=f"text 0 has {most + 1} characters, and at most {most} are read"):
        tokenizer.encode(["a" * (most + 1)])


def test_texts_are_tokenized_in_batches_that_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(with_parts(normalizer=replaced({"String": "z"}, "ball " * 50)), TOKENIZER)
    texts = [f"red {'a' * (tokenizer.most_chars // 2 - 10)}", "blue", "ball"] * 3
    encoding = tokenizer.encode(texts)
    assert encoding.ids[:, 1].tolist() == [RED, 8, BALL] * 3
    batches = list(tokenizer._batches(texts))
    assert [text for batch in batches for text in batch] == texts
    assert len(batches) == 2
    assert all(sum(map(len, batch)) <= tokenizer.most_chars for batch in batches)


def test_a_text_may_be_padded_and_cut_at_its_left_end() -> None:
    left = TextProcessor(6, Padding(9, Side.LEFT), Side.LEFT)
    encoding = Tokenizer(tokenizer_json(), left).encode(["red ball", "red red red red red ball"])
    assert encoding.ids.tolist() == [[9, 9, BOS, RED, BALL, EOS], [BOS, RED, RED, RED, BALL, EOS]]
    assert encoding.mask.tolist() == [[0, 0, 1, 1, 1, 1], [1] * 6]
    assert encoding.truncated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), " A  red,\tBall! "),
        ((Canonical.LOWER,), " a  red,\tball! "),
        ((Canonical.STRIP_PUNCTUATION,), " A  red\tBall "),
        ((Canonical.COLLAPSE_SPACES,), "A red, Ball!"),
        (tuple(Canonical), "a red ball"),
    ],
)
def test_a_text_is_made_canonical_as_the_processor_says(steps: tuple[Canonical, ...], expected: str) -> None:
    assert canonicalized(" A  red,\tBall! ", steps) == expected
    processor = replace(TOKENIZER, canonicalize=steps)
    made = Tokenizer(tokenizer_json(), processor).encode([" A  red,\tBall! "])
    plain = Tokenizer(tokenizer_json(), TOKENIZER).encode([expected])
    np.testing.assert_array_equal(made.ids, plain.ids)


def test_what_is_canonical_to_nothing_cannot_be_read() -> None:
    tokenizer = Tokenizer(tokenizer_json(), replace(TOKENIZER, canonicalize=(Canonical.STRIP_PUNCTUATION,)))
    with pytest.raises(InputError, match="holds nothing the model can read"):
        tokenizer.encode(["?!"])


def test_a_prompt_cannot_be_run_yet() -> None:
    segments = (PromptSegment(SegmentKind.LITERAL, "Question: "), PromptSegment(SegmentKind.TEXT))
    with pytest.raises(BundleError, match="this runtime cannot run prompts; install a newer"):
        Tokenizer(tokenizer_json(), replace(TOKENIZER, prompt=segments))
