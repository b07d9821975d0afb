"""What a tokenizer.json may cost: how much longer it can make a text, found before the library reads it.

A file of a few lines can multiply a text by a million, at load (for added tokens are normalized) or at the
first text, and then the library does not raise: the process is ended for want of memory.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.schema import parse_json

TEXT_BYTES = 2**31
"""No text, and no batch of texts, may take more memory while it is tokenized."""

LEAST_CHARS = 10_000
"""A tokenizer that could not read that many within `TEXT_BYTES` is refused."""

_MAX_PATTERN_CHARS = 10_000
_MAX_WORD_CHARS = 1_000  # WordPiece's time grows with its square
_TOKEN_BYTES = 300  # measured with tokenizers 0.23.3; beside them its string
_PIECE_BYTES = 1_200  # of each piece into which a text that is too long is cut

# Into how many characters each of them can turn one. The text is counted as NFKD writes it, once and for all.
_NORMALIZERS = {
    "BertNormalizer": 3,  # spaces around ideographs
    "ByteLevel": 12,  # 4 bytes, each of which NFKD may write as 3 characters
    "Lowercase": 1,
    "NFC": 1,
    "NFD": 1,
    "NFKC": 1,
    "NFKD": 1,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
}
_PRE_TOKENIZERS = {
    "BertPreTokenizer": 1,
    "ByteLevel": 5,  # 4 bytes, and a space before each piece
    "CharDelimiterSplit": 1,
    "Digits": 1,
    "FixedLength": 1,
    "Metaspace": 2,  # one more before each piece
    "Punctuation": 1,
    "Split": 1,
    "UnicodeScripts": 1,
    "Whitespace": 1,
    "WhitespaceSplit": 1,
}
_BYTE_FALLBACK = 4


@dataclass(frozen=True)
class TokenizerCosts:
    """What bounds the memory that a text takes.

    Attributes:
        growth: how many tokens one character can become, at most.
        longest: characters of the longest token.
    """

    growth: int
    longest: int

    def most_chars(self, length: int, specials: int) -> int:
        """How many characters `TEXT_BYTES` allow, counted by `expanded_chars`.

        Args:
            length: tokens of a piece; what does not fit into one becomes further pieces.
            specials: how many of these are the tokenizer's own, in each piece.
        """
        kept = length - specials
        piece = _PIECE_BYTES + length * (_TOKEN_BYTES + 4 * self.longest)
        return kept * TEXT_BYTES // (self.growth * piece)


def expanded_chars(text: str) -> int:
    """How many characters a text has at most in Unicode's normal forms and in lower case."""
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text))


def read_costs(content: bytes, where: str, length: int) -> TokenizerCosts:
    """Finds out what a tokenizer.json costs, and refuses one that costs too much.

    Args:
        content: the file.
        where: what to call it in messages.
        length: tokens that the model reads.

    Raises:
        BundleError: it can make texts too much longer, or holds a part that this runtime does not know.
    """
    try:
        value = parse_json(content, where)
    except BundleError as error:
        if isinstance(error.__cause__, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
            return TokenizerCosts(1, 0)  # it is no JSON to the library either, which tells more
        raise
    if not isinstance(value, dict):
        return TokenizerCosts(1, 0)
    try:
        costs, added = _costs(value), sum(map(expanded_chars, _added_tokens(value)))
    except BundleError as error:
        raise BundleError(f"{where}: {error}; do not use this bundle") from error
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise BundleError(f"{where} is not a tokenizer (one of its parts has an unknown form)") from error
    if costs.most_chars(length, 0) < max(LEAST_CHARS, added):
        raise BundleError(
            f"{where} could fill the memory: it can make {quoted(costs.growth)} tokens of up to "
            f"{costs.longest} characters of each character of a text, and of {added} in its added tokens; "
            "do not use this bundle"
        )
    return costs


def _costs(value: Mapping[str, Any]) -> TokenizerCosts:
    model, processor = value.get("model") or {}, value.get("post_processor")
    if (model.get("max_input_chars_per_word") or 0) > _MAX_WORD_CHARS:
        raise BundleError(f"model.max_input_chars_per_word is more than {_MAX_WORD_CHARS}")
    _check_templates(processor)
    growth = _normalizer_growth(value.get("normalizer")) * _pre_tokenizer_growth(value.get("pre_tokenizer"))
    growth *= _BYTE_FALLBACK if model.get("byte_fallback") else 1
    vocab = model.get("vocab") or ()
    tokens = vocab if isinstance(vocab, dict) else (piece[0] for piece in vocab)  # Unigram: [piece, score]
    others = [item for key, item in model.items() if key not in ("vocab", "merges")]
    strings = chain(tokens, _added_tokens(value), _strings([others, processor]))
    return TokenizerCosts(growth, max(map(len, strings), default=0))


def _added_tokens(value: Mapping[str, Any]) -> list[str]:
    return [token["content"] for token in value.get("added_tokens") or ()]


def _normalizer_growth(part: Mapping[str, Any] | None) -> int:
    if part is None:
        return 1
    kind = part["type"]
    if kind == "Sequence":
        return prod(map(_normalizer_growth, part["normalizers"]))
    if kind == "Prepend":
        return 1 + expanded_chars(part["prepend"])
    if kind == "Replace":
        matched = _least_matched(part["pattern"])
        content = expanded_chars(part["content"])
        return max(1, -(-content // matched)) if matched else 1 + content
    if kind == "Precompiled":
        return _longest_replacement(part["precompiled_charsmap"])
    if kind not in _NORMALIZERS:
        raise BundleError(f"normalizer {quoted(kind)} is not known")
    return _NORMALIZERS[kind]


def _pre_tokenizer_growth(part: Mapping[str, Any] | None) -> int:
    if part is None:
        return 1
    kind = part["type"]
    if kind == "Sequence":
        return prod(map(_pre_tokenizer_growth, part["pretokenizers"]))
    if kind == "Split":
        _least_matched(part["pattern"])
    if kind not in _PRE_TOKENIZERS:
        raise BundleError(f"pre_tokenizer {quoted(kind)} is not known")
    return _PRE_TOKENIZERS[kind]


def _least_matched(pattern: Mapping[str, str]) -> int:
    """How many characters a pattern matches at least; a regular expression may match none, at every place."""
    ((kind, text),) = pattern.items()
    if len(text) > _MAX_PATTERN_CHARS:
        raise BundleError(f"a pattern has more than {_MAX_PATTERN_CHARS} characters")
    return len(text) if kind == "String" else 0


def _longest_replacement(charsmap: str) -> int:
    """SentencePiece's table: the size of a trie, the trie, and replacements that each end in a zero byte."""
    content = base64.b64decode(charsmap, validate=True)
    start = 4 + int.from_bytes(content[:4], "little")
    replacements = content[start:].split(b"\0")
    return max(1, *(expanded_chars(each.decode("utf-8", "replace")) for each in replacements))


def _check_templates(part: Any) -> None:
    """A template that holds the text more than once multiplies it."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for each in part["processors"]:
            _check_templates(each)
    elif part["type"] == "TemplateProcessing" and sum("Sequence" in piece for piece in part["single"]) > 1:
        raise BundleError("post_processor's template holds the text more than once")


def _strings(values: Iterable[Any]) -> Iterable[str]:
    """Every string within parsed JSON, keys included."""
    left = list(values)
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            left += [*item, *item.values()]
        elif isinstance(item, list):
            left += item
