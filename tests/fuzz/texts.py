"""Texts: ids as the tokenizers library itself pads and cuts them, or an InputError."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import Padding, TextProcessor
from pocketvl_runtime.text import Tokenizer
from tests.fuzz.target import Case, Finding, refusal
from tests.runtime.bundles import TOKENIZER, tokenizer_json

_CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
_WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "red",
    "cube",
    "left",
    "<eos>",
    "<|endoftext|>",
    "[SEP]",
    "[PAD]",
    "naïve",
)
_ODD = (
    "\0",
    "\x1b[31m",
    "\u200b",
    "\u200d",
    "\u202e",
    "\ufeff",
    "\ufffd",
    "\uffff",
    "\u3000",
    "\u2028",
    "\xa0",
    "e\u0301",
    "\u0301" * 200,
    "ﬁ",
    "İ",
    "ß",
    "한",
    "\u1112\u1161\u11ab",
    "ก็",
    "漢字",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "\U0010ffff",
    "ﷺ",
    "𝒜",
    "１",
    "{label}",
    "%n",
    "\\u0041",
)
_WRONG: tuple[Any, ...] = (None, 1, 1.5, True, b"text", ["text"], ("text",), {"text": 1}, object)


class Texts:
    """`Tokenizer.encode`, with the tokenizers of the small bundle and of the checkpoints."""

    name = "texts"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in; not needed here."""
        found = [(tokenizer_json(), TOKENIZER)]
        spec = TextProcessor(32, Padding(0))
        found += [(path.read_bytes(), spec) for path in sorted(_CHECKPOINTS.glob("*/tokenizer.json"))]
        self._ours = [Tokenizer(content, spec) for content, spec in found]
        self._theirs = [_reference(content, spec) for content, spec in found]

    def make(self, rng: random.Random) -> Case:
        """A few texts; sometimes something else."""
        texts: Any = [_text(rng) for _ in range(rng.choice((0, 1, 1, 2, 5)))]
        if rng.random() < 0.05:
            texts = rng.choice(
                (tuple(texts), "text", b"text", None, 7, iter(["text"]), {"text": 1}, set(texts))
            )
        elif texts and rng.random() < 0.08:
            texts[rng.randrange(len(texts))] = rng.choice(_WRONG)
        which = rng.randrange(len(self._ours))
        return Case(f"tokenizer {which}: {texts!a:.200}", {"texts": f"{texts!a}".encode()}, (which, texts))

    def check(self, case: Case) -> str:
        """Tokenizes and holds everything against the library."""
        which, texts = case.options
        ours, theirs = self._ours[which], self._theirs[which]
        try:
            encoding = ours.encode(texts)
        except InputError as error:
            if _is_good(texts, theirs):
                raise Finding("a text that can be read is refused", str(error)) from error
            return refusal(error)
        if not _is_good(texts, theirs):
            raise Finding("what is no text is taken", repr(texts)[:200])
        expected = theirs.encode_batch(list(texts))
        shape = (len(texts), ours.processor.max_length)
        _same("ids", encoding.ids, [each.ids for each in expected], shape, np.int32)
        _same("mask", encoding.mask, [each.attention_mask for each in expected], shape, np.int32)
        theirs.no_truncation()
        lengths = [sum(each.attention_mask) for each in theirs.encode_batch(list(texts))]
        theirs.enable_truncation(ours.processor.max_length)
        _same("lengths", encoding.lengths, lengths, shape[:1], np.int64)
        _same("truncated", encoding.truncated, [n > shape[1] for n in lengths], shape[:1], np.bool_)
        return "ids"


def _reference(content: bytes, spec: TextProcessor) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer.from_buffer(content)
    theirs.enable_truncation(spec.max_length)
    theirs.enable_padding(length=spec.max_length, pad_id=spec.pad_id)
    return theirs


def _is_good(texts: Any, theirs: tokenizers.Tokenizer) -> bool:
    """Whether `encode` documents that it takes these: strings of Unicode, not blank, each with a token."""
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return False
    if not all(text.strip() for text in texts):
        return False
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    specials = theirs.num_special_tokens_to_add(False)
    return all(sum(each.attention_mask) > specials for each in theirs.encode_batch(list(texts)))


def _same(what: str, got: Any, expected: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if got.shape != shape or got.dtype != dtype:
        raise Finding(f"{what} of another kind", f"{got.dtype} {got.shape}, wanted {dtype} {shape}")
    if not np.array_equal(got, np.asarray(expected, dtype).reshape(shape)):
        raise Finding(f"other {what} than the library's", f"{got.tolist()}, expected {expected}"[:1000])


def _text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.05:
        return rng.choice(("", " ", "\t\n", "\u3000", "\x1f", "\x85"))
    if kind < 0.1:
        return (rng.choice(_ODD) * rng.choice((1, 100, 20_000)))[:50_000]
    if kind < 0.15:  # surrogates: alone, or two that would be one character
        return "a" + rng.choice(("\ud800", "\udfff", "\udce9", "\ud83d\ude00"))
    parts = [_part(rng) for _ in range(rng.choice((1, 2, 5, 40, 400)))]
    return rng.choice(("", " ", " ")).join(parts)


def _part(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(_WORDS)
    if kind < 0.7:
        return rng.choice(_ODD)
    code = rng.choice((rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x110000)))
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ue000"
