"""Writes UnicodeData.java: how the tokenizers library sees each code point, found by asking it.

The library is built of parts with Unicode 8, 9, 16 and 17 in them, the JVM and Android have further versions, each
release its own. So the Android reader asks neither: it holds these tables.

    python -m tests.android.write_unicode > android_demo/core/src/main/java/dev/pocketvl/core/text/UnicodeData.java

Needs the packages `regex` and `unicodedata2` (18.0), which know what the library does not tell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import regex
import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

LIBRARY_VERSION = "0.23.3"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = [
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Mn",
    "Mc",
    "Me",
    "Nd",
    "Nl",
    "No",
    "Pc",
    "Pd",
    "Ps",
    "Pe",
    "Pi",
    "Pf",
    "Po",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Zs",
    "Zl",
    "Zp",
    "Cc",
    "Cf",
    "Co",
    "Cn",
]
GRAPHEMES = [
    "Other",
    "CR",
    "LF",
    "Control",
    "Extend",
    "ZWJ",
    "Regional_Indicator",
    "Prepend",
    "SpacingMark",
    "L",
    "V",
    "T",
    "LV",
    "LVT",
    "Extended_Pictographic",
    "Consonant",
]
SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"

# What `regex` and `unicodedata2` have from Unicode 18; the library splits graphemes as 17 does.
SINCE_18 = regex.compile(
    r"[\u05c8\u05c9\u0b53\u0b54\u1ade\u1adf\u1aec-\u1aff\U00010ecb\U00010ef0-\U00010eff\U00011b00-\U00011b5f"
    r"\U00011db0-\U00011dff]"
)
PICTOGRAPHIC_UNTIL_17 = (range(0x1F1AD, 0x1F1E6), range(0x1F7D5, 0x1F800))


def matches(pattern: str) -> list[int]:
    """Which code points a regular expression of the library matches."""
    split = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed", invert=True)
    found: list[int] = []
    for _, (start, end) in split.pre_tokenize_str("".join(map(chr, CODE_POINTS))):
        found += CODE_POINTS[start:end]
    return found


def alone(part: pre_tokenizers.PreTokenizer, before: str, after: str) -> list[int]:
    """Which code points a pre-tokenizer makes a piece of their own of between these."""
    step = len(before) + 1 + len(after)
    text = "".join(before + chr(c) + after for c in CODE_POINTS)
    places = {
        start
        for _, (start, end) in part.pre_tokenize_str(text)
        if end - start == 1 and start % step == len(before)
    }
    return [c for index, c in enumerate(CODE_POINTS) if step * index + len(before) in places]


def white_space() -> list[int]:
    kept = alone(pre_tokenizers.WhitespaceSplit(), " ", " ")
    return sorted(set(CODE_POINTS) - set(kept))


def removed(part: normalizers.Normalizer) -> list[int]:
    return [c for c in CODE_POINTS if part.normalize_str(chr(c)) == ""]


def lower_case() -> dict[int, int]:
    lower = normalizers.Lowercase()
    found = {c: lower.normalize_str(chr(c)) for c in CODE_POINTS}
    longer = {c: text for c, text in found.items() if len(text) != 1}
    assert longer == {0x130: "i\u0307"}, longer
    return {c: ord(text) for c, text in found.items() if c != 0x130 and ord(text) != c}


def after_unicode_9() -> list[int]:
    """Those to which newer versions give a decomposition or a combining class, and the library none."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()

    def inert(c: int) -> bool:
        text = chr(c)
        orders = (f"a{text}\u0334", f"a\u0345{text}")
        return nfkd.normalize_str(text) == text and all(nfd.normalize_str(each) == each for each in orders)

    found = set()
    for c in CODE_POINTS:
        text = chr(c)
        parts = unicodedata2.decomposition(text)
        hangul = 0xAC00 <= c < 0xD7A4
        if (parts or unicodedata2.combining(text)) and not hangul and inert(c):
            if unicodedata2.combining(text) == 1 and not parts and c < 0x10FFF:
                continue  # nothing is ordered before the lowest class; these are old
            found.add(c)
            if parts and not parts.startswith("<"):
                found |= {part for each in parts.split() if inert(part := int(each, 16))}
    return sorted(found)


def python_casing() -> tuple[list[int], list[int]]:
    """Which code points `str.lower` skips around a capital sigma, and which make it a final one."""
    ignorable, cased = [], []
    for c in CODE_POINTS:
        if c == 0x3A3 or ("!" + chr(c) + "\u03a3").lower()[-1] == "\u03c2":
            cased.append(c)
        elif ("A" + chr(c) + "\u03a3").lower()[-1] == "\u03c2":
            ignorable.append(c)
    return cased, ignorable


def grapheme_classes() -> list[int]:
    names = {name: regex.compile(rf"\p{{GCB={name}}}") for name in GRAPHEMES[1:14]}
    pictographic, consonant = (
        regex.compile(r"\p{Extended_Pictographic}"),
        regex.compile(r"\p{InCB=Consonant}"),
    )
    found = []
    for c in range(0x110000):
        text = chr(c)
        name = next((name for name, pattern in names.items() if pattern.match(text)), "Other")
        if name == "Other" and (pictographic.match(text) or any(c in each for each in PICTOGRAPHIC_UNTIL_17)):
            name = "Extended_Pictographic"
        elif name == "Other" and consonant.match(text):
            name = "Consonant"
        found.append(0 if SINCE_18.match(text) else GRAPHEMES.index(name))
    return found


def of_property(pattern: str) -> list[int]:
    compiled = regex.compile(pattern)
    return [c for c in CODE_POINTS if compiled.match(chr(c)) and not SINCE_18.match(chr(c))]


def packed(numbers: Iterable[int]) -> str:
    """Numbers in groups of 5 bits, low ones first; the sixth bit says that more follow."""
    text = []
    for number in numbers:
        while number >= 32:
            text.append(SYMBOLS[32 + number % 32])
            number //= 32
        text.append(SYMBOLS[number])
    return "".join(text)


def runs(code_points: Sequence[int]) -> Iterator[int]:
    """Lengths by turns: of those that are not in the set, of those that are."""
    end = 0
    index = 0
    while index < len(code_points):
        start = code_points[index]
        length = 1
        while index + length < len(code_points) and code_points[index + length] == start + length:
            length += 1
        yield start - end
        yield length
        end = start + length
        index += length


def class_runs(classes: Sequence[int]) -> Iterator[int]:
    start = 0
    for index in range(1, len(classes) + 1):
        if index == len(classes) or classes[index] != classes[start]:
            yield index - start
            yield classes[start]
            start = index


def mapping_runs(mapping: dict[int, int]) -> Iterator[int]:
    """Gap to the last run, number of code points, step from one to the next, and zigzag of what is added."""
    keys = sorted(mapping)
    end = index = 0
    while index < len(keys):
        start = keys[index]
        added = mapping[start] - start
        step = keys[index + 1] - start if index + 1 < len(keys) else 1
        step = step if step in (1, 2) else 1
        count = 1
        while (key := start + count * step) in mapping and mapping[key] - key == added:
            count += 1
        taken = {start + k * step for k in range(count)}
        assert all(keys[index + k] in taken for k in range(count))
        yield from (start - end, count, step, 2 * added if added >= 0 else -2 * added - 1)
        end = start + (count - 1) * step
        index += count


def constant(name: str, what: str, numbers: Iterable[int]) -> str:
    text = packed(numbers)
    lines = [text[start : start + 100] for start in range(0, len(text), 100)] or [""]
    body = "\n                    + ".join(f'"{line}"' for line in lines)
    return f"    /** {what} */\n    static final String {name} =\n            {body};\n"


def class_table() -> list[int]:
    """The general category of each code point, as the library's regular expressions have it."""
    table = [CATEGORIES.index("Cn")] * 0x110000
    for index, name in enumerate(CATEGORIES):
        for c in matches(rf"\p{{{name}}}"):
            table[c] = index
    return table


def constants() -> Iterator[str]:
    cased, ignorable = python_casing()
    bert = normalizers.BertNormalizer
    options = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    sets: list[tuple[str, str, Callable[[], list[int]]]] = [
        ("PATTERN_SPACE", r"\\s of regular expressions.", lambda: matches(r"\s")),
        ("PATTERN_WORD", r"\\w of regular expressions.", lambda: matches(r"\w")),
        ("PATTERN_HAN", r"\\p{Han} of regular expressions.", lambda: matches(r"\p{Han}")),
        ("WHITE_SPACE", "What splits at white space and strips see as such.", white_space),
        ("WORD", "Word characters of the pre-tokenizer Whitespace and of single words.", word),
        (
            "NUMERIC",
            "What the pre-tokenizer Digits sees as a digit.",
            lambda: alone(pre_tokenizers.Digits(individual_digits=True), "x", "x"),
        ),
        (
            "PUNCTUATION",
            "Punctuation of BertPreTokenizer and Punctuation.",
            lambda: alone(pre_tokenizers.Punctuation(), "x", "x"),
        ),
        (
            "BERT_CONTROL",
            "What BertNormalizer cleans away.",
            lambda: removed(bert(**options | {"clean_text": True})),
        ),
        (
            "BERT_ACCENT",
            "What BertNormalizer strips.",
            lambda: removed(bert(**options | {"strip_accents": True})),
        ),
        ("ACCENT", "What StripAccents strips.", lambda: removed(normalizers.StripAccents())),
        (
            "INERT",
            "What normal forms must leave alone, whatever later versions of Unicode say.",
            after_unicode_9,
        ),
        ("CASED", "What makes a capital sigma after it a final one.", lambda: cased),
        ("CASE_IGNORABLE", "What is skipped around a capital sigma.", lambda: ignorable),
        ("CONJUNCT_LINKER", "Indic_Conjunct_Break=Linker.", lambda: of_property(r"\p{InCB=Linker}")),
        ("CONJUNCT_EXTEND", "Indic_Conjunct_Break=Extend.", lambda: of_property(r"\p{InCB=Extend}")),
    ]
    for name, what, find in sets:
        yield constant(name, what, runs(find()))
    yield constant(
        "LOWER_CASE", "Lower case of single code points; U+0130 has two.", mapping_runs(lower_case())
    )
    names = " ".join(CATEGORIES)
    yield constant("CATEGORY", f"General categories: {names}.", class_runs(class_table()))
    yield constant("GRAPHEME", f"Grapheme clusters: {' '.join(GRAPHEMES)}.", class_runs(grapheme_classes()))


def word() -> list[int]:
    """Those that do not stick to a mark before them, and are no white space."""
    return alone(pre_tokenizers.Whitespace(), "!", " ")


def main() -> None:
    if tokenizers.__version__ != LIBRARY_VERSION:
        sys.exit(
            f"tokenizers {LIBRARY_VERSION} is wanted, not {tokenizers.__version__}: other tables would result"
        )
    print("package dev.pocketvl.core.text;\n")
    print(
        f"/** How the tokenizers library {LIBRARY_VERSION} sees code points; written by tests/android/write_unicode.py. */"
    )
    print("final class UnicodeData {\n    private UnicodeData() {}\n")
    print("\n".join(constants()), end="")
    print("}")


if __name__ == "__main__":
    main()
