"""Trimming a tokenizer: tokens that some texts never use leave it, and those texts keep their tokens.

Every text can still be encoded, in more and shorter tokens where its own are gone: single characters, and the
bytes that byte-level BPE and byte fallback spell unknown ones in, always stay, as do special tokens.

Why texts keep their tokens. BPE joins, again and again, the pair that was learned first: where all joins that
made the texts' tokens stay, others that go were never made, so that none of the steps changes. WordPiece
takes the longest token that fits, Unigram the likeliest segmentation: taking away what was not taken changes
neither. Source for pruning BPE merges and their intermediate tokens together: Cognetta et al., 2024, "An
Analysis of BPE Vocabulary Trimming in Neural Machine Translation", arXiv 2404.00397.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from pocketvl.errors import RecipeError
from pocketvl_runtime.errors import quoted

_WORD_PIECE_PREFIX = "##"
_METASPACE = "\u2581"
_BATCH = 10_000


@dataclass(frozen=True)
class TrimmedTokenizer:
    """A tokenizer with fewer tokens.

    Attributes:
        content: tokenizer.json.
        kept: of each new id the id before, ascending.
    """

    content: bytes
    kept: tuple[int, ...]

    @property
    def new_ids(self) -> dict[int, int]:
        """New ids by those before."""
        return {before: now for now, before in enumerate(self.kept)}


def trim_tokenizer(content: bytes, texts: Sequence[str], first: int = 0) -> TrimmedTokenizer:
    """Take away the tokens that texts do not use.

    Args:
        content: tokenizer.json: BPE, WordPiece, Unigram or WordLevel.
        texts: as they reach the tokenizer.
        first: how many of the tokens with the lowest ids stay whether they are used or not: vocabularies
            begin with special tokens, characters and what is most common.

    Raises:
        RecipeError: it is of another kind, or the texts would not keep their tokens.
    """
    document: dict[str, Any] = json.loads(content)
    kind = document["model"].get("type")
    if kind not in _TRIMMED:
        raise RecipeError(
            f"trim-vocabulary: the tokenizer is of kind {quoted(kind)}; it works with {', '.join(_TRIMMED)}"
        )
    tokenizer = _plain(content)
    used = {each for ids in _encoded(tokenizer, texts) for each in ids}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = {entry["id"] for entry in document.get("added_tokens", ())}
    kept = used | added | set(range(min(first, len(vocabulary))))
    kept = _TRIMMED[kind](document["model"], kept)
    order = tuple(sorted(kept))
    new_ids = {before: now for now, before in enumerate(order)}
    _renumber(document, vocabulary, new_ids)
    found = TrimmedTokenizer(json.dumps(document, ensure_ascii=False).encode("utf-8"), order)
    _check(tokenizer, found, texts)
    return found


def _plain(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterable[list[int]]:
    for start in range(0, len(texts), _BATCH):
        yield from (each.ids for each in tokenizer.encode_batch(list(texts[start : start + _BATCH])))


def _check(before: Tokenizer, trimmed: TrimmedTokenizer, texts: Sequence[str]) -> None:
    """Raise RecipeError where a text has other tokens than before."""
    after, kept = _plain(trimmed.content), trimmed.kept
    pairs = zip(texts, _encoded(before, texts), _encoded(after, texts), strict=True)
    for text, ids, new in pairs:
        if ids != [kept[each] for each in new]:
            raise RecipeError(
                f"trim-vocabulary: {quoted(text)} would have other tokens than before: please report this "
                "tokenizer"
            )


def _trim_bpe(model: dict[str, Any], kept: set[int]) -> set[int]:
    """Keep what the kept tokens are made of, step by step, and the joins of those steps alone."""
    vocabulary: dict[str, int] = model["vocab"]
    tokens = {number: token for token, number in vocabulary.items()}
    merges = [tuple(each.split(" ", 1)) if isinstance(each, str) else tuple(each) for each in model["merges"]]
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    suffix = model.get("end_of_word_suffix") or ""
    prefix = model.get("continuing_subword_prefix") or ""
    joined = {(left + right.removeprefix(prefix)) for left, right in merges}
    stay = {number for token, number in vocabulary.items() if token not in joined}  # characters and bytes
    needed: set[tuple[str, str]] = set()
    for number in sorted(kept):
        token = tokens.get(number)
        if token is None:  # an added one, which the model does not know
            continue
        steps = _joins(token, ranks, prefix, suffix)
        needed.update(steps)
        for left, right in steps:
            stay |= {vocabulary[part] for part in (left, right, left + right.removeprefix(prefix))}
    model["merges"] = [each for each, pair in zip(model["merges"], merges, strict=True) if pair in needed]
    return kept | stay


def _joins(token: str, ranks: dict[tuple[str, str], int], prefix: str, suffix: str) -> list[tuple[str, str]]:
    """The joins that BPE makes on the way from a token's characters to the token."""
    ends = bool(suffix) and token.endswith(suffix) and token != suffix
    characters = list(token.removesuffix(suffix) if ends else token)
    if prefix and token.startswith(prefix):
        characters = list(token.removeprefix(prefix))
        parts = [prefix + each for each in characters]
    else:
        parts = [characters[0], *(prefix + each for each in characters[1:])] if characters else []
    if ends and parts:
        parts[-1] += suffix
    steps = []
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(range(len(pairs)), key=lambda at: (ranks.get(pairs[at], len(ranks)), at))
        if pairs[best] not in ranks:
            break  # a token that is never made, as <|unused|> is
        steps.append(pairs[best])
        parts[best : best + 2] = [pairs[best][0] + pairs[best][1].removeprefix(prefix)]
    return steps


def _trim_word_piece(model: dict[str, Any], kept: set[int]) -> set[int]:
    prefix = model.get("continuing_subword_prefix", _WORD_PIECE_PREFIX)
    unknown = model.get("unk_token")
    return kept | {
        number
        for token, number in model["vocab"].items()
        if len(token.removeprefix(prefix)) == 1 or token == unknown
    }


def _trim_unigram(model: dict[str, Any], kept: set[int]) -> set[int]:
    characters = {
        number
        for number, (token, _) in enumerate(model["vocab"])
        if len(token.removeprefix(_METASPACE)) <= 1 or (token.startswith("<0x") and len(token) == 6)
    }
    unknown = {model["unk_id"]} if model.get("unk_id") is not None else set()
    return kept | characters | unknown


def _trim_words(model: dict[str, Any], kept: set[int]) -> set[int]:
    unknown = model["vocab"].get(model.get("unk_token"))
    return kept if unknown is None else kept | {unknown}


_TRIMMED = {
    "BPE": _trim_bpe,
    "WordPiece": _trim_word_piece,
    "Unigram": _trim_unigram,
    "WordLevel": _trim_words,
}


def _renumber(document: dict[str, Any], vocabulary: dict[str, int], new_ids: dict[int, int]) -> None:
    """Write the new ids of a tokenizer.json wherever it has any, and drop tokens that have none."""
    model = document["model"]
    if isinstance(model["vocab"], list):  # Unigram's, by their places
        model["vocab"] = [each for number, each in enumerate(model["vocab"]) if number in new_ids]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
    else:
        rows = sorted(model["vocab"].items(), key=lambda row: row[1])
        model["vocab"] = {token: new_ids[number] for token, number in rows if number in new_ids}
    for entry in document.get("added_tokens", ()):
        entry["id"] = new_ids[entry["id"]]
    document["truncation"] = None
    padding = document.get("padding")
    if isinstance(padding, dict) and "pad_id" in padding:
        padding["pad_id"] = new_ids.get(padding["pad_id"], 0)
    _renumber_specials(document.get("post_processor"), vocabulary, new_ids)


def _renumber_specials(processor: Any, vocabulary: dict[str, int], new_ids: dict[int, int]) -> None:
    """Write the new ids of what a post-processor puts around texts."""
    if not isinstance(processor, dict):
        return
    for each in processor.get("processors", ()):
        _renumber_specials(each, vocabulary, new_ids)
    specials = processor.get("special_tokens")
    if isinstance(specials, dict):  # TemplateProcessing
        for special in specials.values():
            special["ids"] = [new_ids[number] for number in special["ids"]]
    for name in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        pair = processor.get(name)
        if isinstance(pair, list):
            processor[name] = [pair[0], new_ids[pair[1]]]
