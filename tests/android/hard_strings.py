"""Texts that tokenizers trip over: every way of writing, white space, joiners, marks, emoji, long words, damage."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence

WHITE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\x00\x01\x07\x08\x1b\x7f\x80\x9f\xad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\ufeff\ufffd"
MARKS = "\u0300\u0301\u0308\u030a\u0323\u0327\u0328\u0334\u0345\u035c\u0483\u05b0\u064b\u0651\u093c\u094d\u0e38\u1dc0\u20d0\u20e3\u302a\u3099\ufe0f\ufe20"
EDGES = "\ud7ff\ue000\uf8ff\ufffe\uffff\U00010000\U0001ffff\U000e0001\U000e0041\U000e01ef\U000f0000\U0010ffff\u0378\u05ff"
CASES = "İIıißẞſKÅΣσςΣΣ. ΑΣ ΑΣΑ ΌΣΟΣ ǅǆǄ ŉ ﬁﬃﬅ ΐ ᾳᾼ Ⅷⅷ Ⓐⓐ 𐐀𐐨 ᲐაႠⴀᏐꭰ Ϳϳ Ǝǝ Ʝ ꞪɦꟵ ⱯⱰ"
DIGITS = "0123456789٠١٢٣۴५৬੭௮๙༢᠓０１２𝟘𝟙²³¼½Ⅳↁ〇一二㊿①⑳𐄇𑁦"
WORDS = [
    "a",
    "the",
    "cat",
    "cats",
    "dog",
    "red",
    "blue",
    "green",
    "ball",
    "square",
    "circle",
    "left",
    "right",
    "of",
    "above",
    "below",
    "photo",
    "picture",
    "two",
    "three",
    "don't",
    "it's",
    "we'll",
    "I'VE",
    "you're",
    "HE'D",
    "O'Neil's",
    "naïve",
    "café",
    "Zürich",
    "façade",
    "Ångström",
    "señor",
    "coöperate",
    "street-art",
    "e-mail",
    "3.14",
    "1,000",
    "$5",
    "#1",
    "@home",
    "C++",
    "50%",
    "http://a.b/c?d=e&f=g",
    "hello_world",
    "CamelCase",
    "x=y",
]
SCRIPTS = (
    "кошка и собака",
    "Η ΓΑΤΑ ΚΑΙ Ο ΣΚΥΛΟΣ",
    "שָׁלוֹם עולם",
    "اَلسَّلَامُ عَلَيْكُمْ ٣ قطط",
    "नमस्ते दुनिया क्षत्रिय श्री",
    "বাংলা ভাষা",
    "தமிழ் மொழி",
    "ภาษาไทยไม่มีวรรค",
    "မြန်မာဘာသာ",
    "ភាសាខ្មែរ",
    "བོད་སྐད་",
    "ქართული ᲥᲐᲠᲗᲣᲚᲘ",
    "Հայերեն և",
    "አማርኛ ነው።",
    "红色的球在左边，两只猫。",
    "猫と犬、ガギグゲゴ ｶﾞｷﾞ ㍿㌔",
    "고양이와 개 \u1112\u1161\u11ab\u1100\u1173\u11af \u1100\u1161\u11a8\u11af",
    "Tiếng Việt có dấu",
    "𠀀𠮷𪚥 㐀㿿 豈更",
    "ᏣᎳᎩ ꮳꮃꭹ",
    "𝓗𝓮𝓵𝓵𝓸 ｆｕｌｌ　ｗｉｄｔｈ ⓒⓘⓡⓒⓛⓔ",
)
EMOJI = (
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷🇺", "❤️", "1️⃣", "☺", "👩🏿‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "©️", "™", "🫠", "🧑‍🤝‍🧑",
)  # fmt: skip
SPECIALS = (
    "<pad>", "<unk>", "<bos>", "<eos>", "<s>", "</s>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "[cls]", "##ing",
    "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "</w>", "▁", "▁the", "Ġa", "<0x0A>", "<0xFF>", "<extra_id_0>",
    "<Tag>", "<tag>", "<Wide>", "<mask>", "wholeword", "unwholeworded", "É<Tag>é", "<Tag", "Tag>",
)  # fmt: skip
PLANES = (range(0x20), range(0x20, 0x250), range(0x250, 0x3000), range(0x3000, 0x10000), range(0x10000, 0x20000),
          range(0x20000, 0x32000), range(0xE0000, 0xE01F0), range(0x10FF00, 0x110000))  # fmt: skip

FIXED = (
    "", " ", "\n\t", "\u3000", "\x1c", "\u200b", "\ufeff", "\u180e", "\x85", ".", "...", "a", "İ", "Σ", "\u0301", "\u200d",
    "\ud800", "a\udcffb", "\udc00\ud800", "a" * 300, "ab" * 2_000, "é" * 101, "x" * 100, "x" * 101, "x " * 500,
    "!" * 200, " " * 300 + "a", "a" + " " * 300, "\n" * 50 + "b", "a\u0301" * 150, "😀" * 120, "猫" * 150, "\u0301" * 100,
    "a\r\nb\r\n\r\nc", "don't", "'s", "it's'll", "  two  spaces  ", "\t tab", "a\xa0b", "1" * 120, "'S 'T 'RE 'Ll 'ſ",
    "ΑΣ ΑΣΑ Α\u0301Σ Σ' 'Σ' Α.Σ ΑΣ\u0301Α ΑΣ\u0301 ΑΣ", "ﷺ" * 30, "ΐ" * 40, "\u1e9b\u0323", "q\u0307\u0323", "\u212b",
    "ａ\u0301ｂ\u0323 Ａ\u200dＢ ①\ufe0f ½\u0301", "\u0344\u0958\ufb1d\u2adc", "가\u11a8", "\u1100\u1161\u11a7",
)  # fmt: skip


def hard_strings(count: int, seed: int) -> list[str]:
    """So many texts; the same ones for the same seed."""
    source = random.Random(seed)
    makers: Sequence[Callable[[random.Random], str]] = (
        _caption,
        _caption,
        _spaced,
        _mixed,
        _mixed,
        _planes,
        _planes,
        _marked,
        _long_word,
        _specials,
        _cased,
        _digits,
    )
    texts = list(FIXED)
    while len(texts) < count:
        texts.append(makers[len(texts) % len(makers)](source))
    return texts[:count]


def sweep_strings(characters: int = 48) -> Iterator[str]:
    """Every code point that this Python knows, each after a letter, before a letter, doubled, and under marks."""
    known = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Co", "Cn")]
    for start in range(0, len(known), characters):
        yield "".join(f"x{chr(c)}x {chr(c)}{chr(c)}\u0301\u0323 " for c in known[start : start + characters])


def _caption(source: random.Random) -> str:
    return " ".join(source.choices(WORDS, k=source.randint(1, 25)))


def _spaced(source: random.Random) -> str:
    words = source.choices(WORDS, k=source.randint(1, 8))
    return "".join(_some(source, WHITE, 3) + word for word in words) + _some(source, WHITE + INVISIBLE, 2)


def _mixed(source: random.Random) -> str:
    parts = source.choices(
        (*SCRIPTS, *EMOJI, *WORDS, *SPECIALS, *INVISIBLE, *WHITE, *EDGES), k=source.randint(1, 12)
    )
    return source.choice(("", " ")).join(parts)


def _planes(source: random.Random) -> str:
    length = source.randint(1, 40)
    plane = source.choice(PLANES)
    return "".join(
        _assigned(source, plane if source.random() < 0.7 else source.choice(PLANES)) for _ in range(length)
    )


def _marked(source: random.Random) -> str:
    letters = "".join(
        source.choices((*"aeiouAEIOUnzÅ한가나क猫ｶ", "\u1112\u1161", "<Tag>", " "), k=source.randint(1, 12))
    )
    return "".join(letter + _some(source, MARKS + "\u200d", 4) for letter in letters)


def _long_word(source: random.Random) -> str:
    alphabet = source.choice(("ab", "abcdefghij", "aé", "猫犬", "xyz'", "0123", "Σσ", "😀a", "\u0301a"))
    return "".join(source.choices(alphabet, k=source.choice((60, 99, 100, 101, 250, 400))))


def _specials(source: random.Random) -> str:
    between = ("", "", " ", "  ", "\n", "a", "é", "\u3000", "_", "-")
    return "".join(source.choice(SPECIALS) + source.choice(between) for _ in range(source.randint(1, 9)))


def _cased(source: random.Random) -> str:
    return "".join(source.choices(CASES + "'.:\u0301\u00ad", k=source.randint(1, 30)))


def _digits(source: random.Random) -> str:
    return "".join(source.choices(DIGITS + " ,.-+xa", k=source.randint(1, 30)))


def _some(source: random.Random, characters: str, most: int) -> str:
    return "".join(source.choices(characters, k=source.randint(0, most)))


def _assigned(source: random.Random, plane: range) -> str:
    while True:
        character = chr(source.choice(plane))
        if unicodedata.category(character) not in ("Cs", "Cn"):
            return character
