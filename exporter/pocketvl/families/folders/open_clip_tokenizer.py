"""open_clip's tokenizers as a tokenizer.json.

Its own, CLIP's BPE, is written in Python; the same ids come of a tokenizer.json, but for what open_clip
cleans a text of first and no tokenizer.json can (ftfy's repairs of broken encodings, HTML entities): a note
says so.

Source: open_clip 3.3, `SimpleTokenizer`, `HFTokenizer`, `get_tokenizer` (which of them reads a folder).
"""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from pocketvl.errors import SourceError
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.open_clip import TEXT, Description
from pocketvl.families.folders.token_files import TOKENIZER_FILE, default_class
from pocketvl.families.folders.tokenizer import TokenizerFile, check_vocabulary, read_tokenizer
from pocketvl_runtime.errors import library_text, quoted
from pocketvl_runtime.manifest import Canonical, Padding, Side, TextProcessor

_BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# ftfy takes these out, and straightens quotes: what of its work people's captions need most
_CONTROLS = (
    "[\\x00-\\x08\\x0b\\x0e-\\x1f\\x7f"
    "\N{INHIBIT SYMMETRIC SWAPPING}-\N{NOMINAL DIGIT SHAPES}\N{ZERO WIDTH NO-BREAK SPACE}"
    "\N{INTERLINEAR ANNOTATION ANCHOR}-\N{OBJECT REPLACEMENT CHARACTER}]"
)
_QUOTES = (
    (
        "[\N{LEFT SINGLE QUOTATION MARK}-\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}"
        "\N{MODIFIER LETTER APOSTROPHE}]",
        "'",
    ),
    ("[\N{LEFT DOUBLE QUOTATION MARK}-\N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}]", '"'),
)
_NOTE = (
    "texts are not cleaned of broken encodings and HTML entities first, as open_clip's tokenizer does: no "
    "tokenizer.json can"
)


def read_open_clip_tokenizer(
    description: Description,
) -> tuple[TokenizerFile, TextProcessor, tuple[str, ...]]:
    """How open_clip makes ids of texts for a model: the tokenizer, its processor, notes for the user.

    Args:
        description: of the model, in the folder that holds the tokenizer's files, where it has any.

    Raises:
        SourceError: the tokenizer is missing or broken, does not fit the model, or is one that is not known.
    """
    folder, text = description.path.parent, description.model.text_cfg
    options = {key: value for key, value in (text.tokenizer_kwargs or {}).items() if value is not None}
    notes: tuple[str, ...] = (_NOTE,)
    steps: tuple[Canonical, ...] = ()
    if description.trimmed is not None:
        found, notes = _stored(folder / TOKENIZER_FILE, description.trimmed.pad_id), ()
    elif text.hf_tokenizer_name:
        _check_options(options, {"clean": "whitespace", "strip_sep_token": False}, description.path)
        found, steps = _of_transformers(description), (Canonical.COLLAPSE_SPACES,)
    else:
        _check_options(options, {"clean": "lower"}, description.path)
        found = _stored_json(simple_tokenizer_json(folder), 0, "open_clip's tokenizer")
    check_vocabulary(found, text.vocab_size, folder)
    padding = Padding(found.pad_id, found.pad_side)
    return found, TextProcessor(text.context_length, padding, canonicalize=steps + found.canonicalize), notes


def _check_options(given: dict[str, Any], supported: dict[str, object], path: Path) -> None:
    """Raise SourceError where tokenizer_kwargs asks for more than open_clip does without it."""
    for key, value in given.items():
        if key not in supported or value != supported[key]:
            known = ", ".join(f"{name} {quoted(each)}" for name, each in supported.items())
            raise SourceError(
                f"{path}: {TEXT}.tokenizer_kwargs: {key} is {quoted(value)}; supported there is {known}"
            )


def _of_transformers(description: Description) -> TokenizerFile:
    folder, named = description.path.parent, description.model.text_cfg.hf_tokenizer_name
    if not (folder / TOKENIZER_FILE).exists() and default_class(folder) is None:
        raise SourceError(
            f"{folder}: {TEXT}.hf_tokenizer_name is {quoted(named)}, whose files are not there: put its "
            f"{TOKENIZER_FILE} and tokenizer_config.json into the folder"
        )
    return read_tokenizer(folder, follows_transformers=True)


def _stored(path: Path, pad_id: int) -> TokenizerFile:
    read_json(path)  # says what is wrong with it
    return _stored_json(path.read_bytes(), pad_id, str(path))


def _stored_json(content: bytes, pad_id: int, where: str) -> TokenizerFile:
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise SourceError(
            f"{where} is not a tokenizer that `tokenizers` can open: {library_text(error, 200)}"
        ) from error
    empty = tokenizer.encode("").ids
    if not empty:
        raise SourceError(f"{where}: texts do not end with a special token (its post_processor adds none)")
    return TokenizerFile(content, tokenizer, None, empty[-1], pad_id, Side.RIGHT, ())


def simple_tokenizer_json(folder: Path) -> bytes:
    """tokenizer.json of open_clip's own tokenizer, of the vocabulary in its package.

    Args:
        folder: of the model, for messages.

    Raises:
        SourceError: open_clip is not installed.
    """
    package = find_spec("open_clip")  # which is not imported: it takes seconds, and torchvision
    places = () if package is None else tuple(package.submodule_search_locations or ())
    path = next((Path(place) / _BPE_FILE for place in places if (Path(place) / _BPE_FILE).is_file()), None)
    if path is None:
        raise SourceError(
            f"{folder} takes open_clip's own tokenizer, and open_clip is not installed: pip install "
            '"pocketvl[open-clip]"'
        )
    return _simple_tokenizer_json(path)


@lru_cache(maxsize=1)
def _simple_tokenizer_json(path: Path) -> bytes:
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [line.split() for line in lines[1 : 1 + _MERGES]]
    characters = _byte_characters()
    tokens = [*characters, *(f"{each}</w>" for each in characters), *map("".join, merges), _START, _END]
    specials = {token: tokens.index(token) for token in (_START, _END)}
    shared = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    replaced = ((_CONTROLS, ""), *_QUOTES, (r"\s+", " "))
    document = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": token, **shared} for token, number in specials.items()],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                *({"type": "Replace", "pattern": {"Regex": set_}, "content": by} for set_, by in replaced),
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template("A"),
            "pair": [*_template("A"), *_template("B")],
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]} for token, number in specials.items()
            },
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False).encode("utf-8")


def _template(sequence: str) -> list[dict[str, dict[str, object]]]:
    kinds = (("SpecialToken", _START), ("Sequence", sequence), ("SpecialToken", _END))
    return [{kind: {"id": name, "type_id": 0}} for kind, name in kinds]


def _byte_characters() -> list[str]:
    """The characters that byte-level BPE writes bytes in, in the order of CLIP's first 256 ids."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [chr(256 + number) for number in range(256 - len(plain))]
    found = [chr(byte) for byte in plain] + others
    assert set(found) == set(pre_tokenizers.ByteLevel.alphabet())
    return found
