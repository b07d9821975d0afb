"""A WordPiece tokenizer as BERT's, of English and Chinese, with the files that transformers reads it from."""

from __future__ import annotations

import re
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from tests.families.drawn import write_json

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
PAD_ID = 0
_SPECIALS = (PAD, UNK, CLS, SEP, MASK)
_CORPUS = [
    "a photo of a red circle left of a small blue square",
    "a large striped green triangle above a dotted yellow star",
    "a picture of two cats, a dog and one car on the street",
    "what colour is the thing below the white cross?",
    "一张红色圆形的照片，在蓝色小方块的左边",
    "街上有两只猫、一只狗和一辆车",
]


def _vocabulary(size: int) -> list[str]:
    """The same in every process, which a trainer's choice among equals is not."""
    words = re.findall(r"[a-z]+|[^\s\w]|[\u4e00-\u9fff]", " ".join(_CORPUS).lower())
    characters = sorted({*string.ascii_lowercase, *string.digits, *"".join(words)})
    letters = [each for each in characters if each.isascii()]
    tokens = [
        *_SPECIALS,
        *characters,
        *(f"##{each}" for each in letters),
        *sorted(set(words) - set(characters)),
    ]
    unused = (f"[unused{number}]" for number in range(size))
    return [*tokens, *unused][:size]


def wordpiece_tokenizer(vocabulary: int) -> Tokenizer:
    """[CLS] text [SEP], lower-cased, Chinese by the character."""
    ids = {token: index for index, token in enumerate(_vocabulary(vocabulary))}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=UNK, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(_SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, ids[token]) for token in (CLS, SEP)],
    )
    return tokenizer


def save_wordpiece(tokenizer: Tokenizer, folder: Path, length: int | None) -> None:
    """tokenizer.json and tokenizer_config.json, for transformers' BertTokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": PAD, "unk_token": UNK}
    config |= {"cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
    if length is not None:
        config["model_max_length"] = length
    write_json(folder / "tokenizer_config.json", config)
