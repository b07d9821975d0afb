"""Whether transformers makes the same ids of texts as a folder's tokenizer.json alone, which a bundle holds.

tokenizer_config.json, and what stands beside it, can make a word special, choose a class that replaces parts
of tokenizer.json by its own, or cut and fill texts at their start. transformers' own classes read these files
here, and what they make of them is compared.

One class, SigLIP's, does not read tokenizer.json at all, and changes texts before it asks SentencePiece.

Source: transformers 5.23, `AutoTokenizer.from_pretrained` (which class), `TokenizersBackend.__init__` (what
the keys mean), `SiglipTokenizer.canonicalize_text`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import CONFIG_FILE, PROCESSOR_FILES
from pocketvl.families.folders.token_files import as_fast, check_read, default_class
from pocketvl_runtime.errors import library_text, quoted, shortened
from pocketvl_runtime.manifest import Canonical, Side
from pocketvl_runtime.text import canonicalized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, SiglipTokenizer

_CONFIG = "tokenizer_config.json"
_CLASS, _PLAIN_CLASS = "tokenizer_class", "PreTrainedTokenizerFast"  # which reads tokenizer.json as it is
_BESIDE = ("special_tokens_map.json", "added_tokens.json")
_TEXTS = (
    "",
    "a photo of a cat",
    "  two   spaces,\ttabs and\nnew lines ",
    "UPPER Case, Title Case",
    "it's we're I'll don't",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \ufb01ne",
    "1234567890 3.14 12,000 $5",
    "!? ... --- (a) [b] {c} <d> #e @f",
    "\u732b\u3068\u72ac \u043a\u043e\u0442 \u0642\u0637 \u0e41\u0e21\u0e27",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "zero\u200bwidth\u00a0space\u00ad soft",
    "longwordwithoutanyspaceinit" * 4,
    "<|startoftext|> a <|endoftext|> [CLS] b [SEP] [PAD] [MASK] <s> c </s> <pad> <unk> <bos> <eos>",
)
_FIXED = {"truncation_side": "right", "split_special_tokens": False}
_SAMPLED_TOKENS = 1_000  # of a tokenizer in Python, which takes its time


@dataclass(frozen=True)
class TransformersTokenizer:
    """What transformers makes of the tokenizer files of a folder.

    Attributes:
        pad_id: the id with which it fills up short texts; None where it has none.
        pad_side: at which end.
        canonicalize: what it does to texts first.
        rewritten: the tokenizer that it makes, where tokenizer.json alone is another.
    """

    pad_id: int | None
    pad_side: Side
    canonicalize: tuple[Canonical, ...] = ()
    rewritten: Tokenizer | None = None


def check_ids(folder: Path, ours: Tokenizer, follows: bool = False) -> TransformersTokenizer:
    """Compare transformers' ids of texts, by all files of a folder, with those of tokenizer.json alone.

    Args:
        folder: a Hugging Face model folder.
        ours: its tokenizer.json, without truncation and padding.
        follows: give what transformers makes of the files, and padding at either end, instead of refusing
            them for it.

    Raises:
        SourceError: transformers cannot read the files, or makes other ids of some text; the message names
            the key that does it, where it is one alone.
    """
    with TemporaryDirectory() as name:
        copy = Path(name)
        _copy_small_files(folder, copy)
        try:
            theirs = _read(copy)
        except Exception as error:  # a key of a wrong type fails wherever it first hurts
            reason = library_text(error, 200)
            culprit = _culprit(folder, copy, ours, "")
            raise SourceError(f"{culprit}: transformers cannot read it: {reason}") from error
        for key, wanted in (_FIXED if follows else {"padding_side": "right", **_FIXED}).items():
            if getattr(theirs, key) != wanted:
                found = quoted(getattr(theirs, key))
                raise SourceError(f"{folder / _CONFIG}: {key} is {found}; only {wanted} is supported")
        steps = canonical_steps(theirs)
        made = TransformersTokenizer(theirs.pad_token_id, Side(theirs.padding_side), steps)
        if follows and not steps and not _is_same_file(theirs.backend_tokenizer, ours):
            return replace(made, rewritten=theirs.backend_tokenizer)
        text = _differing_text(theirs, ours)
        if text is not None:
            raise SourceError(
                f"{_culprit(folder, copy, ours, text)}: with it transformers makes other ids of "
                f"{quoted(text)} than tokenizer.json says; correct it, or save the tokenizer again"
            )
    return made


def make_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that transformers makes of a folder that has no tokenizer.json.

    Raises:
        SourceError: transformers cannot read the folder's files.
    """
    with TemporaryDirectory() as name:
        _copy_small_files(folder, Path(name))
        try:
            theirs = _read(Path(name))
        except Exception as error:  # a damaged file fails wherever it first hurts
            raise SourceError(
                f"{folder}: transformers cannot read its tokenizer's files: {library_text(error, 200)}"
            ) from error
        made = as_fast(theirs, folder)
        check_read(made, folder, type(theirs).__name__)
        return made


def canonical_steps(theirs: PreTrainedTokenizerBase) -> tuple[Canonical, ...]:
    """What a tokenizer in Python does to texts before it asks SentencePiece."""
    from transformers import SiglipTokenizer

    if not isinstance(theirs, SiglipTokenizer):
        return ()
    lower = (Canonical.LOWER,) if theirs.do_lower_case else ()
    return (*lower, Canonical.STRIP_PUNCTUATION, Canonical.COLLAPSE_SPACES)


def _copy_small_files(folder: Path, copy: Path) -> None:
    """Copy what transformers reads a tokenizer from, without byte order marks, which it does not read over.

    A folder without tokenizer_config.json is one whose tokenizer.json says everything, of whatever class.
    """
    chosen = default_class(folder) or _PLAIN_CLASS
    (copy / _CONFIG).write_text(json.dumps({_CLASS: chosen}), encoding="utf-8")
    for name in (CONFIG_FILE, *PROCESSOR_FILES):
        if (folder / name).is_file():
            (copy / name).write_bytes((folder / name).read_bytes().removeprefix(codecs.BOM_UTF8))


def _read(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    theirs: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if not canonical_steps(theirs):
        theirs.backend_tokenizer.no_truncation()
        theirs.backend_tokenizer.no_padding()
    return theirs


def _is_same_file(one: Tokenizer, other: Tokenizer) -> bool:
    first, second = one.to_str(), other.to_str()
    return first == second or json.loads(first) == json.loads(second)


def _differing_text(theirs: PreTrainedTokenizerBase, ours: Tokenizer, sample: str = "") -> str | None:
    """A text of which the ids differ, if any."""
    steps = canonical_steps(theirs)
    if steps:
        return _differing_canonical(cast("SiglipTokenizer", theirs), steps, ours)
    backend: Tokenizer = theirs.backend_tokenizer
    texts = [*_TEXTS, sample]
    if not _is_same_file(backend, ours):
        # built in another way: every token, as a word and within one
        tokens = sorted({*ours.get_vocab(), *backend.get_vocab()})
        texts += [*(f"a {token} b" for token in tokens), *(f"x{token}y" for token in tokens)]
    pairs = zip(texts, _ids(backend, texts), _ids(ours, texts), strict=True)
    return next((text for text, one, other in pairs if one != other), None)


def _differing_canonical(
    theirs: SiglipTokenizer, steps: tuple[Canonical, ...], ours: Tokenizer
) -> str | None:
    """Likewise. Texts that spell a special token are left out: it takes them for the token."""
    tokens = sorted(ours.get_vocab())[:: max(1, ours.get_vocab_size() // _SAMPLED_TOKENS)]
    texts = [*_TEXTS, *(f"a {token} b" for token in tokens)]
    texts = [text for text in texts if not any(token in text for token in theirs.added_tokens_encoder)]
    mine = _ids(ours, [canonicalized(text, steps) for text in texts])
    pairs = zip(texts, mine, strict=True)
    return next((text for text, found in pairs if theirs(text, verbose=False).input_ids != found), None)


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int] | None]:
    """The ids of each text; None where the tokenizer fails."""
    try:
        return [each.ids for each in tokenizer.encode_batch(texts)]
    except Exception:  # tokenizers raises bare Exception
        return [None] if len(texts) == 1 else [_ids(tokenizer, [text])[0] for text in texts]


def _culprit(folder: Path, copy: Path, ours: Tokenizer, text: str) -> str:
    """The path and key without which the ids are the same; the path alone where no single key is to blame.

    Args:
        folder: for messages.
        copy: of its small files; changed and put back.
        ours: its tokenizer.json.
        text: of which the ids differ.
    """
    for path, key, value, rest in _without_one(copy):
        before = path.read_bytes()
        path.write_text(json.dumps(rest), encoding="utf-8")
        if _is_same(copy, ours, text):
            return f"{folder / path.name}: {shortened(key, 100)} is {quoted(value)}"
        path.write_bytes(before)
    return str(folder / _CONFIG)


def _without_one(copy: Path) -> Iterator[tuple[Path, str, object, dict[str, Any]]]:
    """A file, one of its keys, what that says, and what the file says without it."""
    for name in (_CONFIG, *_BESIDE):
        if not (copy / name).is_file():
            continue
        with suppress(ValueError, RecursionError):
            stored = json.loads((copy / name).read_bytes())
            if not isinstance(stored, dict):
                continue
            keys = [key for key in stored if key != _CLASS]
            for key in keys:
                rest = {other: value for other, value in stored.items() if other != key}
                yield copy / name, key, stored[key], rest
            if name == _CONFIG:
                yield copy / name, _CLASS, stored.get(_CLASS), {**stored, _CLASS: _PLAIN_CLASS}


def _is_same(folder: Path, ours: Tokenizer, text: str) -> bool:
    try:
        return _differing_text(_read(folder), ours, text) is None
    except Exception:
        return False
