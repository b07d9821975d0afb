"""Dataset folders: samples of the documented types, or a DataError."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from PIL import Image

from pocketvl.data.dataset import SAMPLES_FILE, Dataset, Sample, questions_of
from pocketvl.errors import DataError
from tests.fuzz.mutations import Extra, Raw, damage, edit, hostile_json, json_text
from tests.fuzz.target import Case, Finding, refusal

_ROW = {
    "image": "images/a.png",
    "captions": ["a red cube", "a cube"],
    "negatives": ["a blue cube"],
    "negative_kinds": ["colour"],
    "label": "cube",
    "objects": [{"shape": "cube", "at": [0.5, 0.25]}],
    "qa": [{"question": "what is it?", "answer": "a cube", "type": "shape"}],
}
_PATHS = (
    "images/b.png",
    "images/none.png",
    "images",
    "images/../images/a.png",
    "images/a.png/",
    "images//a.png",
    "./images/a.png",
    "images/a.png\0",
    "images/loop.png",
    "images/out.png",
    "images/" + "x" * 300,
    "x/" * 3000,
    "~/a.png",
    ".",
    "..",
    SAMPLES_FILE,
    Raw('"images\\/a.png"'),
)
_EXTRA: Extra = {
    "image": _PATHS,
    "captions": (None, [], ["a"], ["\u2028"], ["\x00"], ["a"] * 1000, [["a"]]),
    "label": (None, "", "a", 1, "\n"),
    "negative_kinds": ([], ["colour", "shape"], None),
    "qa": ([{}], [{"question": "a"}], [{"question": None, "answer": 1}], None),
    "audio": ("a.wav", *_PATHS),
}


class Datasets:
    """`Dataset.open`, and the questions of what it gives."""

    name = "datasets"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._root = folder / "dataset"
        images = self._root / "images"
        images.mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (4, 4)).save(images / f"{name}.png")
        (images / "loop.png").symlink_to("loop.png")
        (images / "out.png").symlink_to("/dev/null")

    def make(self, rng: random.Random) -> Case:
        """Up to four lines, one of them changed; sometimes the whole text is damaged."""
        lines = [json_text(_ROW).encode() for _ in range(rng.randint(1, 4))]
        place = rng.randrange(len(lines))
        if rng.random() < 0.5:
            row, what = edit(rng, _ROW, rng.choice((1, 1, 2)), _EXTRA)
            lines[place] = json_text(row).encode()
        else:
            lines[place], what = hostile_json(rng, _ROW, _EXTRA)
        text = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n \n")).join(lines)
        if rng.random() < 0.1:
            text, how = damage(rng, text)
            what += f"; {how}"
        return Case(f"line {place + 1} of {len(lines)}: {what}", {SAMPLES_FILE: text})

    def check(self, case: Case) -> str:
        """Opens the folder and looks at each sample."""
        (self._root / SAMPLES_FILE).write_bytes(case.files[SAMPLES_FILE])
        try:
            dataset = Dataset.open(self._root)
        except DataError as error:
            return refusal(error)
        if not len(dataset):
            raise Finding("a dataset without samples", "none")
        for sample in dataset.samples:
            _check(sample, self._root.resolve())
        try:
            questions = questions_of(dataset)
        except DataError as error:
            return f"samples, questions: {refusal(error)}"
        if not all(isinstance(word, str) for question in questions for word in question[1:]):
            raise Finding("questions that are not of strings", repr(questions)[:300])
        return "samples"


def _check(sample: Sample, root: Path) -> None:
    texts: tuple[Any, ...] = (*sample.captions, *sample.negatives, *sample.negative_kinds)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise Finding("captions that are no texts", repr(texts)[:300])
    if sample.label is not None and not (isinstance(sample.label, str) and sample.label.strip()):
        raise Finding("a label that is none", repr(sample.label)[:300])
    for file in sample.files.values():
        if not (file.is_absolute() and file.is_file() and file.is_relative_to(root)):
            raise Finding("a picture or sound that is not there", str(file))
    if not all(isinstance(item, dict) for item in (*sample.objects, *sample.qa)):
        raise Finding("objects or questions that are none", repr(sample)[:300])
