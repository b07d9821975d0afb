"""Bundles: manifest, golden pack, tokenizer, files and graphs; an answer or an error of pocketvl."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError, PocketVLError
from pocketvl_runtime.golden import GOLDEN_FILE
from pocketvl_runtime.manifest import MANIFEST_FILE, TOKENIZER_FILE, ContrastiveTask, manifest_digest
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.selftest import selftest
from tests.fuzz.mutations import HOSTILE, Extra, Raw, hostile_json
from tests.fuzz.target import Case, Finding, refusal
from tests.runtime.asking import write_asking_bundle
from tests.runtime.bundles import with_digest, write_bundle
from tests.runtime.reranking import write_reranking_bundle

_IMAGE = "golden/images/wide.jpg"
_TEXTS = ("a photo of a red cube", "green")
_NUMBERS = (*(v for v in HOSTILE if isinstance(v, int | float)), Raw("1e999"), "1", None)
_MANIFEST_EXTRA: Extra = {
    "scale": ({"first": 0, "second": 1}, {"first": 1e300, "second": 1e-300}, 1, None),
    "first": (0, -1, 1e300, 1e-300, -1e308, "image_encoder.embedding", "text_encoder", ".", *_NUMBERS),
    "second": (0, -1, 1e300, "image_encoder.embedding", "text_encoder.x", "", *_NUMBERS),
    "bias": _NUMBERS,
    "activation": ("sigmoid", "softmax", "relu"),
    "shape": ([], [1], [1, 8], [1, -1], [1, "D"], ["N", 8], [1, 16, 16, 3], [0, 0], [True, 8]),
    "dtype": ("float16", "int64", "uint8", "string"),
    "from": (
        "image",
        "text",
        "eye",
        "image_encoder.embedding",
        "image_encoder.hidden",
        "fusion.logits",
        "a.b.c",
        None,
    ),
    "positive_index": (0, 2, -1, *_NUMBERS),
    "reranks": ("match", "rerank", "", None),
    "template": ("{label}", "{label}" * 1000, "", "{", "{label!r}", "{0}{label}", "\0{label}"),
    "labels": ([], [""], ["a", "a"], ["\ud800"], ["a"] * 300, None, "abc"),
    "version": ("2.1", "2.999999", "3.0", "1.0", "2", 2.0, True, None),
    "format": ("pocketvl-golden", None),
    "kind": ("labels", "generate", "match", "log_mel", "tokenizers", "image", "attention_mask", "hidden"),
    "op": ("pad", "center_crop", "resize"),
    "steps": ([], [{"op": "center_crop", "height": 16, "width": 16, "rounding": "floor"}]),
    "size": _NUMBERS,
    "height": _NUMBERS,
    "width": _NUMBERS,
    "mode": ("exact", "longest_edge", "float", "", None),
    "filter": ("nearest", "lanczos"),
    "rounding": ("half_up", "half_even"),
    "max_length": (1, 2, 3, 11, 13, 65536, 65537, *_NUMBERS),
    "id": _NUMBERS,
    "side": ("left", "up"),
    "truncate": ("left", "never"),
    "canonicalize": (["lower", "strip_punctuation", "collapse_spaces"], ["lower"] * 300, "lower"),
    "prompt": ([{"kind": "text"}], [{"kind": "literal", "text": "x"}], [{}]),
    "signature": ("serving_default", "decode", "", None),
    "ports": ({"pixels": {"shape": [1]}}, {"x": {}}, {"embedding": {"dtype": "float16"}}),
    "min_engine": ("1", "999", "new", ""),
    "rescale": _NUMBERS,
    "std": ([0, 1, 1], [1e-320] * 3, [-1, 1, 1], [1, 1]),
    "bytes": _NUMBERS,
    "sha256": ("", "0" * 64, "F" * 64, "0" * 63 + "\n"),
    "file": (
        "",
        ".",
        "..",
        "/etc/passwd",
        "a\0",
        "graphs",
        MANIFEST_FILE,
        GOLDEN_FILE,
        "C:x",
        "a\\b",
        "x" * 300,
    ),
    "status": ("experimental", "rejected", None),
    "comparable": ([{"space": "", "centred_cosine_median": {}}], [{"space": "x"}], {}),
}
_GOLDEN_EXTRA: Extra = {
    "inputs": (
        {},
        {"image": 0},
        {"image": 1},
        {"text": 2},
        {"image": 0, "text": 0},
        {"eye": 0},
        {"image": -1},
    ),
    "outputs": ({}, {"a.b": []}, {"image_encoder.x": [{"inputs": {}, "shape": [0], "values": []}]}),
    "answers": ({}, None, {"match": []}, {"ask": []}),
    "file": ("", "../x", "golden/golden.json", "manifest.json", TOKENIZER_FILE, "golden/images/none.png"),
    "pixels": (_IMAGE, "golden/golden.json"),
    "text": ("", " ", "\ud800", "x" * 100_000, "\0"),
    "ids": ([], [-1], [2**40], [1.0], [0] * 12, [0] * 100_000),
    "shape": ([], [8], [1, 8, 1], [8, 1], [0], [-1, -8]),
    "values": ([], [0.0] * 8, [1e308] * 8, [1] * 7, [[1]], [1e400 - 1e400]),
    "tolerance": ({}, {"onnx-fp32": {}}, {"": {}}),
    "cosine_min": (-1, 2, *_NUMBERS),
    "max_abs": _NUMBERS,
    "similarity": ([], [0, 0, 0], [2] * 3, None),
    "probability": ([], [0, 0, 0], [1] * 3, None),
}
_TOKENIZER_EXTRA: Extra = {
    "normalizer": (
        None,
        {"type": "Sequence", "normalizers": []},
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
        {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000},
        {"type": "Prepend", "prepend": "x" * 100_000},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        {"type": "BertNormalizer"},
    ),
    "pre_tokenizer": (
        None,
        {"type": "FixedLength", "length": 0},
        {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ),
    "post_processor": (
        None,
        {"type": "BertProcessing", "sep": ["s", 2**32 - 1], "cls": ["c", 2]},
        {"type": "ByteLevel", "trim_offsets": False},
        {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    ),
    "truncation": ({"direction": "Left", "max_length": 0, "strategy": "LongestFirst", "stride": 0},),
    "vocab": ({}, {"a": 0}, {"a": -1}, {"a": 2**32 - 1}, {"<unk>": 0, "a": 0}),
    "unk_token": ("", "none", None),
    "added_tokens": (
        [{"id": 10**6, "content": "a", "special": True}],
        [
            {
                "id": 4,
                "content": "",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
    ),
    "ids": ([], [2**32 - 1], [-1], [5, 5]),
    "type": ("BPE", "Unigram", "WordPiece", "Sequence", ""),
}
_JSON: dict[str, Extra] = {
    MANIFEST_FILE: _MANIFEST_EXTRA,
    GOLDEN_FILE: _GOLDEN_EXTRA,
    TOKENIZER_FILE: _TOKENIZER_EXTRA,
}
_SWAPS = (
    "gone",
    "empty",
    "folder",
    "loop",
    "link inside",
    "link outside",
    "device",
    "pipe",
    "short",
    "changed",
)


class Bundles:
    """A bundle in which a JSON file or a file itself is not as it should be; checksums are right again."""

    name = "bundles"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._whole = self.write(folder / "whole")
        self._copy = folder / "bundle"
        self._outside = folder / "outside"
        self._outside.write_bytes(b"outside")
        self._values = {path: json.loads((self._whole / path).read_text()) for path in _JSON}

    @staticmethod
    def write(folder: Path) -> Path:
        """Writes the bundle as it should be."""
        return write_bundle(folder)

    def make(self, rng: random.Random) -> Case:
        """A changed JSON file, or a file that is something else."""
        if rng.random() < 0.2:
            path = rng.choice(_files(self._whole))
            swap = rng.choice(_SWAPS)
            return Case(f"{path}: {swap}", {}, (path, swap))
        path = rng.choice((MANIFEST_FILE, MANIFEST_FILE, GOLDEN_FILE, TOKENIZER_FILE))
        content, what = hostile_json(rng, self._values[path], _JSON[path])
        return Case(f"{path}: {what}", {path: content})

    def check(self, case: Case) -> str:
        """Opens the bundle, asks each variant, runs the self-test."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._whole, self._copy)
        for path, content in case.files.items():
            (self._copy / path).write_bytes(content if path != MANIFEST_FILE else _signed(content))
            if path != MANIFEST_FILE:
                reseal_file(self._copy, path, content)
        if case.options is not None:
            path, swap = case.options
            _swap(self._copy, path, swap, self._outside)
        return ask_all(self._copy)


class Questions(Bundles):
    """The same of a bundle that answers questions."""

    name = "questions"

    @staticmethod
    def write(folder: Path) -> Path:
        return write_asking_bundle(folder)


class Reranking(Bundles):
    """The same of a bundle whose second head reads what another component gives."""

    name = "reranking"

    @staticmethod
    def write(folder: Path) -> Path:
        return write_reranking_bundle(folder)


def ask_all(root: Path) -> str:
    """What became of opening, loading, asking and testing a bundle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bundle = Bundle.open(root)
        except PocketVLError as error:
            return f"not opened: {refusal(error)}"
        outcomes = {ask_variant(bundle, variant) for variant in bundle.manifest.variants}
        try:
            report = selftest(bundle, list(bundle.manifest.variants), threads=1)
            outcomes.add("passed" if report.passed else "failed")
        except PocketVLError as error:
            outcomes.add(f"self-test: {refusal(error)}")
    return ", ".join(sorted(outcomes))


def ask_variant(bundle: Bundle, variant: str) -> str:
    """What became of loading and asking a variant."""
    try:
        model = load(bundle, variant, threads=1)
    except PocketVLError as error:
        return f"not loaded: {refusal(error)}"
    try:
        return _ask(model, bundle.root)
    except PocketVLError as error:
        return f"not answered: {refusal(error)}"


def _ask(model: Model, root: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "ask" in model.manifest.tasks:
            return _ask_questions(model, root)
        if "rerank" in model.manifest.tasks:
            _rerank(model, root)
        match = model.match(root / _IMAGE, list(_TEXTS))
        rows = model.embed_text(list(_TEXTS))
        task = model.manifest.tasks.get("classify")
        has_labels = isinstance(task, ContrastiveTask) and task.labels
        labels = model.classify(root / _IMAGE) if has_labels else None
    dim = len(model.embed_image(root / _IMAGE))
    if rows.shape != (len(_TEXTS), dim) or not np.isfinite(rows).all():
        raise Finding("embeddings of another kind", f"{rows.dtype} {rows.shape}: {rows}"[:300])
    for results in (match.results, labels.results if labels else ()):
        numbers = [(score.similarity, score.probability) for score in results]
        in_range = all(-1e-6 <= p <= 1 + 1e-6 for _, p in numbers)
        if not np.isfinite(numbers).all() or not in_range:
            raise Finding("probabilities that are none", repr(numbers)[:300])
    return "answers"


def _ask_questions(model: Model, root: Path) -> str:
    for result in model.ask(root / _IMAGE, list(_TEXTS), top=3).results:
        numbers = [each.probability for each in result.answers]
        if not all(0 <= p <= 1 + 1e-6 for p in numbers) or numbers != sorted(numbers, reverse=True):
            raise Finding("probabilities that are none", repr(numbers)[:300])
    return "answers"


def _rerank(model: Model, root: Path) -> None:
    for top in (None, 1):
        numbers = [each.probability for each in model.rerank(root / _IMAGE, list(_TEXTS), top).results]
        if not all(0 <= p <= 1 + 1e-6 for p in numbers) or numbers != sorted(numbers, reverse=True):
            raise Finding("probabilities that are none", repr(numbers)[:300])


def _files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def reseal_file(root: Path, path: str, content: bytes) -> None:
    """Gives the manifest the checksum of a file's new content."""
    manifest: Any = json.loads((root / MANIFEST_FILE).read_text())
    manifest["files"][path] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (root / MANIFEST_FILE).write_text(with_digest(manifest))


def _signed(content: bytes) -> bytes:
    """A manifest with the right checksum, where it is JSON at all; or nothing behind it would be reached."""
    try:
        digest = manifest_digest(content)
    except (BundleError, ValueError, AttributeError, RecursionError):
        return content
    return re.sub(rb'("manifest_sha256"\s*:\s*)"[^"]*"', rb'\1"' + digest.encode() + b'"', content)


def _swap(root: Path, path: str, swap: str, outside: Path) -> None:
    """Puts something else where a file was."""
    place = root / path
    content = place.read_bytes()
    if swap in ("short", "changed"):
        place.write_bytes(content[:-1] if swap == "short" else content[:-1] + bytes([content[-1] ^ 1]))
        return
    place.unlink()
    if swap == "empty":
        place.touch()
    elif swap == "folder":
        place.mkdir()
    elif swap == "loop":
        place.symlink_to(place.name)
    elif swap == "link inside":
        (root / "moved").write_bytes(content)
        place.symlink_to(root / "moved")
    elif swap == "link outside":
        place.symlink_to(outside)
    elif swap == "device":
        place.symlink_to("/dev/zero")
    elif swap == "pipe":
        os.mkfifo(place)
