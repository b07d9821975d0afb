"""Reading tokenizer.json, or the files that one is made of, and what tokenizer_config.json says beside it."""

from __future__ import annotations

import codecs
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import CONFIG_FILE, PROCESSOR_FILES, config_path
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.token_files import TOKENIZER_FILE, check_tokenizer_files
from pocketvl.families.folders.token_ids import check_ids, make_tokenizer
from pocketvl_runtime.errors import quoted, shortened
from pocketvl_runtime.manifest import MAX_TOKENIZER_BYTES, Canonical, Side

LEAST_LENGTH = 3
"""Tokens of a text with one word, with those that begin and end it."""
_READ: dict[tuple[str, bool], TokenizerFile] = {}
"""The last tokenizer, by the files that it was read from."""


@dataclass(frozen=True)
class TokenizerFile:
    """A folder's tokenizer.json with what tokenizer_config.json says beside it.

    Attributes:
        content: tokenizer.json, byte for byte, but for a byte order mark, and without white space where that
            is more than devices read; or what transformers makes of it, or of a folder's other files.
        tokenizer: the same, opened, without truncation and padding.
        limit: the longest text in tokens, special ones included; None if nothing is said.
        eos_id: the id that ends every text.
        pad_id: the id that fills up short texts.
        pad_side: at which end.
        canonicalize: what is done to texts first.
    """

    content: bytes
    tokenizer: Tokenizer
    limit: int | None
    eos_id: int
    pad_id: int
    pad_side: Side
    canonicalize: tuple[Canonical, ...]

    @property
    def highest_id(self) -> int:
        """The highest id that a text can become."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values())


def read_tokenizer(folder: Path, follows_transformers: bool = False) -> TokenizerFile:
    """Read tokenizer.json, or what it can be made of, and, where it exists, tokenizer_config.json.

    Args:
        folder: a Hugging Face model folder.
        follows_transformers: where transformers makes another tokenizer of the two files, take that one.

    Raises:
        SourceError: tokenizer.json is missing or broken, texts do not end with one special token, or
            transformers makes other ids of them.
    """
    known = (_digest(folder), follows_transformers)
    if known not in _READ:
        found = _read(folder, follows_transformers)
        _READ.clear()
        _READ[known] = found
    return _READ[known]


def _digest(folder: Path) -> str:
    """Of all files that `check_ids` reads: 256,000 tokens take it seconds, and a contract is read often."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, *PROCESSOR_FILES):
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _read(folder: Path, follows_transformers: bool) -> TokenizerFile:
    check_tokenizer_files(folder)
    path = folder / TOKENIZER_FILE
    if path.exists():
        stored = read_json(path)
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    else:
        content = make_tokenizer(folder).to_str().encode("utf-8")
        stored = json.loads(content)
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise SourceError(
            f"{path} is not a tokenizer that `tokenizers` can open: {shortened(str(error), 200)}"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    empty = tokenizer.encode("").ids
    probe = tokenizer.encode("a").ids
    if not probe or not empty or probe[-1] != empty[-1]:
        raise SourceError(f"{path}: texts do not end with a special token (its post_processor adds none)")
    limit = _length_limit(config, stored, config_path)
    pad_id = _pad_id(config, stored, tokenizer, probe[-1], config_path)
    theirs = check_ids(folder, tokenizer, follows_transformers)
    if theirs.rewritten is not None:
        tokenizer, content = theirs.rewritten, theirs.rewritten.to_str().encode("utf-8")
    elif len(content) > MAX_TOKENIZER_BYTES:  # a million tokens, each on lines of its own
        content = json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return TokenizerFile(
        content=content,
        tokenizer=tokenizer,
        limit=limit,
        eos_id=probe[-1],
        pad_id=pad_id if theirs.pad_id is None else theirs.pad_id,
        pad_side=theirs.pad_side,
        canonicalize=theirs.canonicalize,
    )


def _length_limit(config: dict[str, Any], stored: dict[str, Any], path: Path) -> int | None:
    limit = config.get("model_max_length")
    if limit is None:
        limit = (stored.get("truncation") or {}).get("max_length")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise SourceError(f"{path}: model_max_length is {quoted(limit)}, not a positive number")
    return int(min(limit, 2**31))  # transformers writes 1e30 for "no limit"


def _pad_id(
    config: dict[str, Any], stored: dict[str, Any], tokenizer: Tokenizer, eos_id: int, path: Path
) -> int:
    token = config.get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        padding = stored.get("padding") or {}
        pad_id = padding.get("pad_id", eos_id)
        return int(pad_id) if isinstance(pad_id, int) else eos_id
    pad_id = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if pad_id is None:
        raise SourceError(f"{path}: pad_token is {quoted(token)}, which is not in tokenizer.json")
    return int(pad_id)


def check_vocabulary(tokenizer: TokenizerFile, size: int, folder: Path) -> None:
    """Raise SourceError where the tokenizer knows ids that a model's `size` tokens do not hold."""
    if tokenizer.highest_id >= size:
        raise SourceError(
            f"{folder}: tokenizer.json has ids up to {tokenizer.highest_id}, but "
            f"{config_path(folder).name}'s vocab_size is "
            f"{size}"
        )


def text_length(tokenizer: TokenizerFile, positions: int, folder: Path) -> int:
    """T, the smaller of the tokenizer's limit and a model's positions.

    Raises:
        SourceError: it leaves no room for a word.
    """
    length = positions if tokenizer.limit is None else min(positions, tokenizer.limit)
    if length < LEAST_LENGTH:
        raise SourceError(
            f"{folder}: texts of {length} tokens leave no room for a word; at least {LEAST_LENGTH} are needed"
        )
    return length


def check_padding(tokenizer: TokenizerFile, folder: Path) -> None:
    """Raise SourceError where the padding token, which a model leaves out, is the one that ends texts."""
    if tokenizer.pad_id == tokenizer.eos_id:
        raise SourceError(
            f"{folder}: texts end with id {tokenizer.eos_id}, which fills up short texts, too; give the "
            "tokenizer a pad token of its own, which a BERT can leave out"
        )


def masked_length(
    tokenizer: TokenizerFile, positions: int, trained: int, folder: Path
) -> tuple[int, tuple[str, ...]]:
    """T of a model that leaves padding out, and a note where that is less than it has positions for.

    transformers fills texts up to the longest of a batch; a graph computes T positions of every text. Such
    models have many more positions than texts that they were trained on have tokens, so that those are T
    unless the tokenizer has a limit of its own.

    Args:
        tokenizer: of the folder.
        positions: of the model.
        trained: tokens of the texts that such models were trained on.
        folder: for messages.

    Raises:
        SourceError: it leaves no room for a word.
    """
    length = text_length(tokenizer, positions, folder)
    if (tokenizer.limit is not None and tokenizer.limit < positions) or length <= trained:
        return length, ()
    note = (
        f"texts are cut at {trained} tokens, as in its training; for longer ones, up to {length - 1}, set "
        "model_max_length in tokenizer_config.json"
    )
    return trained, (note,)
