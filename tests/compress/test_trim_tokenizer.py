"""A trimmed tokenizer makes the same tokens of the texts it was trimmed for, and can spell every other."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece

from pocketvl.compress.vocabulary import trim_tokenizer
from pocketvl.errors import RecipeError

_SYLLABLES = ("ca", "ta", "on", "re", "d", "str", "ing", "é", "lo", "mi", "xy", "'s", "bl", "ue", "wo", "猫")


def words(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 5))) for _ in range(count)]


LEARNED = [" ".join(words(9, seed)) for seed in range(400)]
USED = LEARNED[:40]


def clip_like() -> Tokenizer:
    """Byte-level BPE whose words end in a suffix, as CLIP's."""
    tokenizer = Tokenizer(BPE(unk_token="<end>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(LEARNED, trainer)
    stored = json.loads(tokenizer.to_str())  # a trainer adds the suffixed bytes that it saw alone
    vocabulary = stored["model"]["vocab"]
    for each in alphabet:
        vocabulary.setdefault(f"{each}</w>", len(vocabulary))
    tokenizer = Tokenizer.from_str(json.dumps(stored))
    return with_ends(tokenizer)


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(LEARNED, trainer)
    return with_ends(tokenizer)


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(LEARNED, trainer)
    return with_ends(tokenizer)


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LEARNED, trainer)
    return with_ends(tokenizer)


def with_ends(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(["<start>", "<end>"])
    ids = [(each, tokenizer.token_to_id(each)) for each in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ids)
    return tokenizer


KINDS: dict[str, Tokenizer] = {make.__name__: make() for make in (clip_like, byte_level, word_piece, unigram)}
kinds = pytest.mark.parametrize("kind", KINDS)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text).tokens)


def trimmed(kind: str, texts: list[str], first: int = 0) -> tuple[Tokenizer, Tokenizer, tuple[int, ...]]:
    found = trim_tokenizer(KINDS[kind].to_str().encode(), texts, first)
    return KINDS[kind], Tokenizer.from_str(found.content.decode()), found.kept


@kinds
def test_used_tokens_stay_and_most_others_go(kind: str) -> None:
    before, after, kept = trimmed(kind, USED)
    assert len(kept) == after.get_vocab_size() < 0.8 * before.get_vocab_size()
    for text in USED:
        assert [kept[each] for each in after.encode(text).ids] == before.encode(text).ids
        assert tokens(after, text) == tokens(before, text)


@kinds
@given(chosen=st.sets(st.integers(0, len(LEARNED) - 1), min_size=1, max_size=30))
@settings(deadline=None, max_examples=25)
def test_any_texts_keep_their_tokens(kind: str, chosen: set[int]) -> None:
    texts = [LEARNED[at] for at in sorted(chosen)]
    before, after, _ = trimmed(kind, texts)
    assert [tokens(after, each) for each in texts] == [tokens(before, each) for each in texts]


@kinds
def test_every_other_text_can_still_be_spelt(kind: str) -> None:
    before, after, _ = trimmed(kind, USED[:3])
    unknown = {"[UNK]", "<unk>"}
    others = [*LEARNED[100:], "Ünïcode ½", "完全に新しい", "🙂🙂"]
    spelt = 0
    for text in others:
        if unknown & set(tokens(before, text)):  # neither could the one before
            continue
        spelt += 1
        assert not unknown & set(tokens(after, text))
        assert len(tokens(after, text)) >= len(tokens(before, text))
        if kind == "byte_level":
            assert after.decode(after.encode(text).ids) == before.decode(before.encode(text).ids)
    assert spelt >= 300


@kinds
def test_the_first_tokens_stay_where_that_is_asked_for(kind: str) -> None:
    before, after, kept = trimmed(kind, USED[:1], first=350)
    assert kept[:350] == tuple(range(350))
    fewer = sum(len(tokens(trimmed(kind, USED[:1])[1], text)) for text in LEARNED[200:260])
    more = sum(len(tokens(after, text)) for text in LEARNED[200:260])
    assert sum(len(tokens(before, text)) for text in LEARNED[200:260]) <= more <= fewer


@kinds
def test_what_is_trimmed_can_be_trimmed_again(kind: str) -> None:
    _, after, kept = trimmed(kind, USED)
    again = trim_tokenizer(after.to_str().encode(), USED)
    assert again.kept == tuple(range(len(kept)))


def test_word_level_keeps_its_word_for_unknown_ones() -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "cat": 1, "dog": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    found = trim_tokenizer(tokenizer.to_str().encode(), ["a dog"])
    assert found.kept == (0, 2, 3)
    assert tokens(Tokenizer.from_str(found.content.decode()), "a cat") == ["a", "?"]


def test_another_kind_is_refused() -> None:
    document = json.loads(KINDS["word_piece"].to_str())
    document["model"]["type"] = "Unheard"
    with pytest.raises(RecipeError, match="of kind 'Unheard'; it works with BPE, WordPiece, Unigram, Word"):
        trim_tokenizer(json.dumps(document).encode(), USED)
