"""Small tokenizers of every kind that bundles hold, trained from code with the library itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from pocketvl_runtime.manifest import Canonical, Padding, Side, TextProcessor
from tests.android.hard_strings import CASES, DIGITS, SCRIPTS, WORDS
from tests.runtime.test_large_vocabulary import write_gemma_like

CORPUS = [
    *SCRIPTS,
    CASES,
    DIGITS,
    *WORDS,
    " ".join(WORDS),
    " ".join(WORDS).upper(),
    "a photo of two cats",
] * 3
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json, and what a manifest would say of it."""

    name: str
    content: bytes
    processor: TextProcessor


def trained_files() -> Iterator[TokenizerFile]:
    """One of each kind, with the settings that bundles have, spread over them."""
    lower, strip, collapse = Canonical.LOWER, Canonical.STRIP_PUNCTUATION, Canonical.COLLAPSE_SPACES
    every: list[tuple[str, Callable[[], Tokenizer], TextProcessor]] = [
        ("clip-bpe", clip_bpe, TextProcessor(77, Padding(1))),
        ("gpt2-bpe", gpt2_bpe, TextProcessor(48, Padding(0, Side.LEFT), Side.LEFT)),
        ("llama3-bpe", lambda: split_bpe(LLAMA, True), TextProcessor(64, Padding(3))),
        ("gpt4o-bpe", lambda: split_bpe(GPT4O, False), TextProcessor(64, Padding(3))),
        ("gemma-bpe", gemma_bpe, TextProcessor(64, Padding(0), canonicalize=(lower, strip, collapse))),
        ("llama2-bpe", llama2_bpe, TextProcessor(64, Padding(0), canonicalize=(collapse,))),
        ("unknown-bpe", unknown_bpe, TextProcessor(40, Padding(0))),
        ("bert-wordpiece", lambda: bert_wordpiece(True), TextProcessor(40, Padding(0))),
        ("bert-cased-wordpiece", lambda: bert_wordpiece(False), TextProcessor(40, Padding(0))),
        (
            "t5-unigram",
            lambda: unigram("nmt_nfkc", False),
            TextProcessor(64, Padding(0), canonicalize=(lower, strip)),
        ),
        ("cf-unigram", lambda: unigram("nmt_nfkc_cf", True), TextProcessor(64, Padding(0))),
        ("nfkc-unigram", lambda: unigram("nfkc", False), TextProcessor(64, Padding(0))),
        ("xlmr-unigram", xlmr_unigram, TextProcessor(64, Padding(0))),
        ("word-level", word_level, TextProcessor(40, Padding(0), canonicalize=(lower,))),
        ("added-tokens", added_tokens, TextProcessor(64, Padding(0))),
        ("metaspace-first", metaspace_first, TextProcessor(64, Padding(0))),
    ]
    for name, make, processor in every:
        yield TokenizerFile(name, make().to_str().encode(), processor)


def large_file(folder: Path) -> TokenizerFile:
    """256,000 tokens, as SigLIP 2's."""
    path = folder / "large.json"
    write_gemma_like(path)
    content = path.read_bytes()
    path.unlink()
    return TokenizerFile("large-bpe", content, TextProcessor(64, Padding(0)))


def sweep_files() -> Iterator[TokenizerFile]:
    """Tokenizers whose ids are the bytes of what a normalizer or a pre-tokenizer makes, with a space before each piece."""
    clean = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": False, "lowercase": False}
    rewriting: dict[str, Any] = {
        "nfc": normalizers.NFC(),
        "nfd": normalizers.NFD(),
        "nfkc": normalizers.NFKC(),
        "nfkd": normalizers.NFKD(),
        "lowercase": normalizers.Lowercase(),
        "strip-accents": normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()]),
        "nmt": normalizers.Nmt(),
        "bert": normalizers.BertNormalizer(),
        "bert-cased": normalizers.BertNormalizer(**clean),
        "precompiled": normalizers.Precompiled(charsmap("nmt_nfkc")),
        "precompiled-cf": normalizers.Precompiled(charsmap("nfkc_cf")),
        "bytes": normalizers.ByteLevel(),
    }
    splitting: dict[str, Any] = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "whitespace": pre_tokenizers.Whitespace(),
        "whitespace-split": pre_tokenizers.WhitespaceSplit(),
        "bert": pre_tokenizers.BertPreTokenizer(),
        "punctuation": pre_tokenizers.Punctuation("contiguous"),
        "digits": pre_tokenizers.Digits(False),
        "single-digits": pre_tokenizers.Digits(True),
        "metaspace": pre_tokenizers.Metaspace(),
        "clip": pre_tokenizers.Split(Regex(CLIP), "removed", invert=True),
        "llama": pre_tokenizers.Split(Regex(LLAMA), "isolated"),
        "gpt4o": pre_tokenizers.Split(Regex(GPT4O), "isolated"),
        "word": pre_tokenizers.Split(Regex(r"\w+\b"), "merged_with_next"),
        "digit": pre_tokenizers.Split(Regex(r"\d+?(?=\D)|[^\W\p{N}]"), "merged_with_previous"),
        "symbol": pre_tokenizers.Split(Regex(r"[\p{P}\p{S}\p{M}\p{Han}]++"), "contiguous"),
        "lines": pre_tokenizers.Split(Regex(r"(?<=\s)x|^\p{Z}|\p{Cc}$|(?:x\p{Lo})*x"), "isolated"),
    }
    processor = TextProcessor(4096, Padding(0))
    for name, normalizer in rewriting.items():
        tokenizer = bytes_alone()
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        yield TokenizerFile(f"sweep-{name}", tokenizer.to_str().encode(), processor)
    marking = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    for name, pre_tokenizer in splitting.items():
        tokenizer = bytes_alone()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer, marking])
        yield TokenizerFile(f"sweep-split-{name}", tokenizer.to_str().encode(), processor)


def bytes_alone() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))


def clip_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    specials = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=specials,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        (specials[1], 1), (specials[0], 0), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def gpt2_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def split_bpe(pattern: str, ignore_merges: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "</s>", "<unk>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing("<s> $A", "<s> $A $B:1", special_tokens=[("<s>", 0)]),
        ]
    )
    return tokenizer


def _with_bytes(tokenizer: Tokenizer, tokens: list[str]) -> dict[str, Any]:
    """The tokenizer's parts, its vocabulary moved up behind special tokens and those of the 256 bytes."""
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    first = [*tokens, *(f"<0x{byte:02X}>" for byte in range(256))]
    old = sorted(value["model"]["vocab"], key=value["model"]["vocab"].get)
    merged = [*first, *(token for token in old if token not in first)]
    value["model"]["vocab"] = {token: index for index, token in enumerate(merged)}
    value["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    return value


def gemma_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(CORPUS[:60], trainers.BpeTrainer(vocab_size=700, show_progress=False))
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer.from_str(json.dumps(_with_bytes(tokenizer, specials)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A <eos>", "$A $B", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def llama2_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(CORPUS[:60], trainers.BpeTrainer(vocab_size=600, show_progress=False))
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer.from_str(json.dumps(_with_bytes(tokenizer, specials)))
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A", "<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unknown_bpe() -> Tokenizer:
    """Unknown characters one by one, some bytes, a prefix for what goes on."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["[PAD]", "[UNK]", "<0xE7>", "<0x8C>", "<0xAB>", "<0xC3>", "<0xA9>"],
        continuing_subword_prefix="##",
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    value = json.loads(tokenizer.to_str())
    value["model"]["byte_fallback"] = True
    value["model"]["merges"] = [
        " ".join(pair) for pair in value["model"]["merges"]
    ]  # as files of old have them
    return Tokenizer.from_str(json.dumps(value))


def bert_wordpiece(lower: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if lower:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tokenizer


def _sentencepiece(rule: str, byte_fallback: bool) -> Any:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=written,
        vocab_size=700 if byte_fallback else 450,
        model_type="unigram",
        normalization_rule_name=rule,
        byte_fallback=byte_fallback,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
    )
    made_at_import: Any = sentencepiece_model_pb2
    return made_at_import.ModelProto.FromString(written.getvalue())


def charsmap(rule: str) -> bytes:
    """SentencePiece's own table of replacements."""
    content: bytes = _sentencepiece(rule, False).normalizer_spec.precompiled_charsmap
    return content


def unigram(rule: str, byte_fallback: bool) -> Tokenizer:
    model = _sentencepiece(rule, byte_fallback)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, 2, byte_fallback))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A $B", special_tokens=[("</s>", 1)])
    return tokenizer


def xlmr_unigram() -> Tokenizer:
    tokenizer = unigram("nmt_nfkc", False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<pad>", 0))
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("(?i:ss)"), "ß"),
            normalizers.Prepend("x "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("merged_with_next"),
        ]
    )
    trainer = trainers.WordLevelTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def added_tokens() -> Tokenizer:
    """Added tokens of every sort around a lower-casing WordPiece."""
    tokenizer = bert_wordpiece(True)
    tokenizer.add_tokens(
        [
            AddedToken("<Tag>", normalized=True),
            AddedToken("<tag>x", normalized=False),
            AddedToken("wholeword", single_word=True),
            AddedToken("<Wide>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("É", normalized=True, rstrip=True),
            AddedToken(" cat", normalized=False),
            AddedToken("[MASK] ", normalized=False, lstrip=True),
            AddedToken("two", normalized=True),
        ]
    )
    return tokenizer


def metaspace_first() -> Tokenizer:
    tokenizer = unigram("nfkc", False)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(left=True, right=False),
            normalizers.StripAccents(),
            normalizers.Replace(Regex("^[.]+"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    tokenizer.add_tokens([AddedToken("<Tag>", normalized=False)])
    return tokenizer
