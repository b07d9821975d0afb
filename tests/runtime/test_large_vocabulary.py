"""A tokenizer of 256,000 tokens, as SigLIP 2's, opens in a moment and in little memory."""

from __future__ import annotations

import itertools
import json
import string
import subprocess
import sys
from pathlib import Path

TOKENS = 256_000
MOST_SECONDS, MOST_MB = 15.0, 1_000
_PROGRAM = """
import resource, sys
from pathlib import Path
from pocketvl_runtime.manifest import Padding, TextProcessor
from pocketvl_runtime.text import Tokenizer

content = Path(sys.argv[1]).read_bytes()
tokenizer = Tokenizer(content, TextProcessor(64, Padding(0)))
encoded = tokenizer.encode(["two cats and a dog", "abab \\u732b"])
assert encoded.lengths.tolist() == [10, 6], encoded.lengths
used = resource.getrusage(resource.RUSAGE_SELF)
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]  # ru_maxrss counts the parent's
print(used.ru_utime + used.ru_stime, int(peak) / 1024)
"""


def write_gemma_like(path: Path) -> None:
    """A byte-fallback BPE whose tokens are the words of up to four letters, as far as they go."""
    letters = string.ascii_lowercase
    words = ["".join(word) for size in (2, 3, 4) for word in itertools.product(letters, repeat=size)]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *fallback, "\u2581", *letters]
    words = words[: TOKENS - len(tokens)]
    known = {*letters, *words}
    merges = [[word[:k], word[k:]] for word in words for k in range(1, len(word)) if word[k:] in known]
    vocabulary = {token: index for index, token in enumerate([*tokens, *words])}
    assert len(vocabulary) == TOKENS
    eos = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    document = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, eos],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def test_it_opens_in_a_moment_and_in_little_memory(tmp_path: Path) -> None:
    write_gemma_like(tmp_path / "tokenizer.json")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "tokenizer.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < MOST_SECONDS, "seconds of the processor"
    assert megabytes < MOST_MB
