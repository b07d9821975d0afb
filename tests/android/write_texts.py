"""Writes what the Python runtime makes of hard texts, for the Java reader's tests.

    python -m tests.android.write_texts OUT --count 2000 --seed 0

OUT gets a folder per tokenizer: tokenizer.json, settings.json, and cases.jsonl with one text a line, its ids
without padding, where they start, and whether it was cut, or the error that it was refused with.
`mvn test -Dpocketvl.cases=OUT` reads them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.manifest import Padding, TextProcessor
from pocketvl_runtime.text import Tokenizer
from tests.android.hard_strings import hard_strings, sweep_strings
from tests.android.tokenizer_files import TokenizerFile, large_file, sweep_files, trained_files

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "tabletop-clip": (ROOT / "checkpoints/tabletop-clip/tokenizer.json", 32),
    "tabletop-vilt": (ROOT / "checkpoints/tabletop-vilt/tokenizer.json", 32),
    "openai-clip": (ROOT.parent / "shared/data/clip_tokenizer/tokenizer.json", 77),
}


def published_files() -> Iterator[TokenizerFile]:
    """The tokenizers of checkpoints, as far as they are here."""
    for name, (path, length) in PUBLISHED.items():
        if path.is_file():
            yield TokenizerFile(name, path.read_bytes(), TextProcessor(length, Padding(0)))


def write_cases(folder: Path, file: TokenizerFile, texts: Iterable[str]) -> None:
    """Writes one tokenizer's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(file.content)
    processor = file.processor
    tokenizer = Tokenizer(file.content, processor)
    seconds, chars = 0.0, 0
    with (folder / "cases.jsonl").open("w", encoding="ascii") as lines:
        for text in texts:
            start = time.perf_counter()
            case = expected(tokenizer, text)
            seconds += time.perf_counter() - start
            chars += len(text)
            lines.write(json.dumps({"text": text, **case}) + "\n")
    settings = {
        "max_length": processor.max_length,
        "pad_id": processor.pad.id,
        "pad_side": processor.pad.side.name,
        "truncate": processor.truncate.name,
        "canonicalize": [step.name for step in processor.canonicalize],
        "python_ms": round(1000 * seconds, 3),
        "chars": chars,
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")


def expected(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """What the runtime makes of a text, as a case holds it."""
    try:
        encoding = tokenizer.encode([text])
    except (InputError, BundleError) as error:
        return {
            "refused": type(error).__name__,
            "message": str(error)[:80].encode("ascii", "replace").decode(),
        }
    first, count = int(encoding.mask[0].argmax()), int(encoding.mask[0].sum())
    padded = np.full_like(encoding.ids[0], tokenizer.processor.pad.id)
    padded[first : first + count] = encoding.ids[0][first : first + count]
    mask = np.zeros_like(padded)
    mask[first : first + count] = 1
    if not (np.array_equal(padded, encoding.ids[0]) and np.array_equal(mask, encoding.mask[0])):
        raise AssertionError(f"padding is not what it should be: {text!a}")
    return {
        "first": first,
        "ids": encoding.ids[0][first : first + count].tolist(),
        "truncated": bool(encoding.truncated[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=2_000, help="texts for each tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sweep", action="store_true", help="every code point through every normalizer and split"
    )
    parser.add_argument("--only", help="names of tokenizers, with commas between")
    arguments = parser.parse_args()
    if arguments.sweep:
        files, texts = sweep_files(), list(sweep_strings())
    else:
        files, texts = every_file(arguments.out), hard_strings(arguments.count, arguments.seed)
    for file in files:
        if arguments.only is None or file.name in arguments.only.split(","):
            write_cases(arguments.out / file.name, file, texts)
            sys.stderr.write(f"{file.name}: {len(texts)} texts\n")


def every_file(folder: Path) -> Iterator[TokenizerFile]:
    folder.mkdir(parents=True, exist_ok=True)
    yield from trained_files()
    yield large_file(folder)
    yield from published_files()


if __name__ == "__main__":
    main()
