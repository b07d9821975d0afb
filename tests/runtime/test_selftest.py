"""The selftest passes on a good bundle, and finds each way in which one is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pocketvl_runtime import selftest as module
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.golden import GOLDEN_FILE, AnswerTolerance, Golden, Scores, Tolerance
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.selftest import selftest
from tests.runtime.bundles import (
    IMAGE_PORT,
    TEXT_PORT,
    VARIANTS,
    edit_golden,
    edit_manifest,
    picture,
    reseal,
)


def test_a_good_bundle_passes_with_every_variant(whole_bundle: Path) -> None:
    told: list[tuple[int, int, str]] = []
    report = selftest(Bundle.open(whole_bundle), VARIANTS, lambda *args: told.append(args))
    assert report.passed
    assert (report.files, report.images, report.texts, report.answers) == (12, 2, 3, 4)
    assert report.notes == ()
    assert told == [(number, 3, name) for number, name in enumerate(VARIANTS, start=1)]


Edit = Callable[[Golden], Golden]


def other_output(golden: Golden, port: str, number: int, values: tuple[float, ...]) -> Golden:
    arrays = list(golden.outputs[port])
    arrays[number] = replace(arrays[number], values=values, shape=(1, len(values)))
    return replace(golden, outputs={**golden.outputs, port: tuple(arrays)})


def off_image(golden: Golden) -> Golden:
    return other_output(golden, IMAGE_PORT, 1, golden.outputs[IMAGE_PORT][0].values)


def off_text(golden: Golden) -> Golden:
    first, *others = golden.outputs[TEXT_PORT][0].values
    return other_output(golden, TEXT_PORT, 0, (first + 2e-3, *others))


def short(golden: Golden) -> Golden:
    return other_output(golden, IMAGE_PORT, 0, golden.outputs[IMAGE_PORT][0].values[:3])


def other_ids(golden: Golden) -> Golden:
    first = replace(golden.texts[0], ids=(*golden.texts[0].ids[:-1], 5))
    return replace(golden, inputs={**golden.inputs, "text": (first, *golden.texts[1:])})


def tolerant(golden: Golden, **changes: Any) -> Golden:
    limits = {name: replace(each, **changes) for name, each in golden.tolerance.items()}
    return replace(golden, tolerance=limits)


def strict(golden: Golden) -> Golden:
    return tolerant(golden, ports=dict.fromkeys((IMAGE_PORT, TEXT_PORT), Tolerance(None, 1.01)))


def scores_of(golden: Golden, task: str, *rows: Scores) -> Golden:
    assert golden.answers is not None
    return replace(golden, answers={**golden.answers, task: rows})


def rows_of(golden: Golden, task: str) -> tuple[Scores, ...]:
    assert golden.answers is not None
    return golden.answers[task]


def off_similarity(golden: Golden) -> Golden:
    first, second = rows_of(golden, "match")
    assert second.similarity is not None
    off = replace(second, similarity=(*second.similarity[:-1], second.similarity[-1] + 0.01))
    return scores_of(golden, "match", first, off)


def off_probability(golden: Golden) -> Golden:
    first, second = rows_of(golden, "classify")
    off = replace(first, probability=(first.probability[0] + 0.01, *first.probability[1:]))
    return scores_of(golden, "classify", off, second)


def without_similarity(golden: Golden) -> Golden:
    first, second = rows_of(golden, "match")
    return scores_of(golden, "match", replace(first, similarity=None), second)


def other_number(golden: Golden) -> Golden:
    first, second = rows_of(golden, "match")
    return scores_of(golden, "match", replace(first, similarity=(0.1,), probability=(1.0,)), second)


def other_side(golden: Golden) -> Golden:
    first, second = rows_of(golden, "match")
    return scores_of(golden, "match", replace(first, inputs={"image": 0, "text": 0}), second)


def vague(golden: Golden) -> Golden:
    limit = AnswerTolerance(0.0101, 0.0101)
    changed = off_similarity(off_probability(golden))
    return tolerant(changed, answers={"match": limit, "classify": limit})


def other_first(golden: Golden, tolerance: float = 0.895) -> Golden:
    """The last label first, where 93, 2 and 5 % are right; the tolerance alone would let it pass."""
    first, second = rows_of(golden, "classify")
    swapped = scores_of(golden, "classify", replace(first, probability=(0.04, 0.02, 0.94)), second)
    return tolerant(swapped, answers=dict.fromkeys(("match", "classify"), AnswerTolerance(1e-4, tolerance)))


@pytest.mark.parametrize(
    ("edit", "failures"),
    [
        (off_image, ["onnx-fp32: golden/images/tall.png: image_encoder.embedding: cosine 0."]),
        (
            off_text,
            ["onnx-fp32: golden text 0: text_encoder.embedding: off by 2.00e-03, at most 1.00e-04 expected"],
        ),
        (other_ids, ["golden text 0: the token ids differ"]),
        (short, ["onnx-fp32: golden/images/wide.jpg: image_encoder.embedding is [1, 8], expected [1, 3]"]),
        (strict, ["at least 1.01000 expected"] * 5),
        (
            off_similarity,
            ["onnx-fp32: match of golden/images/tall.png: a similarity is off by 0.0100, at most 0.0001"],
        ),
        (
            off_probability,
            ["onnx-fp32: classify of golden/images/wide.jpg: a probability is off by 0.0100, at most"],
        ),
        (without_similarity, ["match of golden/images/wide.jpg: a similarity is off by nan, at most 0.0001"]),
        (other_number, ["match of golden/images/wide.jpg: 3 scores, expected 1"]),
        (
            other_side,
            ["match of golden/images/wide.jpg and golden text 0: neither side of the task takes that"],
        ),
        (vague, []),
        (
            other_first,
            ["onnx-fp32: classify of golden/images/wide.jpg: number 0 comes first where 2 is right"],
        ),
        (lambda g: other_first(g, 0.901), []),
        (
            lambda g: tolerant(g, answers={}),
            [
                "onnx-fp32: the golden pack has no tolerance for answers of classify",
                "onnx-fp32: the golden pack has no tolerance for answers of match",
            ],
        ),
        (lambda g: tolerant(g, ports={}), ["the golden pack has no tolerance for "] * 5),
        (lambda g: replace(g, tolerance={}), ["the golden pack has no tolerance for "] * 7),
        (
            lambda g: replace(g, inputs={**g.inputs, "eye": ()}),
            ["the golden pack has inputs of processor 'eye', and the manifest has none"],
        ),
    ],
    ids=[
        "image",
        "text",
        "ids",
        "length",
        "cosine",
        "similarity",
        "probability",
        "no similarity",
        "number of scores",
        "side",
        "what differs by less than the tolerance is no failure",
        "ranking",
        "a lead below the tolerance is none",
        "no tolerance for answers",
        "no tolerance for arrays",
        "no tolerance",
        "another processor",
    ],
)
def test_a_golden_pack_that_does_not_hold_is_told(bundle: Path, edit: Edit, failures: list[str]) -> None:
    edit(Bundle.open(bundle).golden()).write(bundle / GOLDEN_FILE)
    reseal(bundle)
    report = selftest(Bundle.open(bundle), ["onnx-fp32"])
    assert report.passed == (not failures)
    assert len(report.failures) == len(failures)
    for said, expected in zip(report.failures, failures, strict=True):
        assert expected in said


def test_one_different_pixel_is_told(bundle: Path) -> None:
    path = bundle / "golden" / "pixels" / "wide.png"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    red, green, blue = image.getpixel((3, 5))  # type: ignore[misc]
    image.putpixel((3, 5), (red, green, blue ^ 4))
    image.save(path)
    reseal(bundle)
    (failure,) = selftest(Bundle.open(bundle), ["onnx-fp32"]).failures
    assert failure == "golden/images/wide.jpg: the pixels differ by up to 4 grey levels"


def test_pixels_of_another_size_are_told(bundle: Path) -> None:
    picture((4, 4)).save(bundle / "golden" / "pixels" / "wide.png")
    reseal(bundle)
    (failure,) = selftest(Bundle.open(bundle), ["onnx-fp32"]).failures
    assert "pixels [16, 16, 3], expected [4, 4, 3]" in failure


def test_a_damaged_file_is_told_even_where_no_variant_needs_it(bundle: Path) -> None:
    (bundle / "graphs" / "text_encoder.fp32.tflite").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"text_encoder\.fp32\.tflite is damaged"):
        selftest(Bundle.open(bundle), ["onnx-fp32"])


@pytest.mark.parametrize("task", ["match", "classify"])
def test_a_golden_pack_without_answers_is_no_proof(bundle: Path, task: str) -> None:
    edit_golden(bundle, lambda g: g["answers"].update({task: []}))
    report = selftest(Bundle.open(bundle), ["onnx-fp32"])
    assert report.failures == (f"the golden pack has no answer of task {task!r}",)


@pytest.mark.parametrize("empty", [["image"], ["text"], ["image", "text"]])
def test_an_empty_golden_pack_is_no_proof(bundle: Path, empty: list[str]) -> None:
    def edit(golden: Any) -> None:
        for name in empty:
            golden["inputs"][name] = []
        golden.update(outputs={}, answers={})

    edit_golden(bundle, edit)
    report = selftest(Bundle.open(bundle), VARIANTS)
    assert list(report.failures) == [f"the golden pack has no input of processor {name!r}" for name in empty]
    assert not report.passed


@pytest.mark.parametrize("broken", VARIANTS)
def test_an_engine_that_fails_is_told_and_the_others_are_checked(bundle: Path, broken: str) -> None:
    engine, precision = broken.split("-")
    (bundle / "graphs" / f"text_encoder.{precision}.{engine}").write_bytes(b"no graph")
    reseal(bundle)
    told: list[str] = []
    report = selftest(Bundle.open(bundle), VARIANTS, lambda _done, _total, name: told.append(name))
    (failure,) = report.failures
    assert failure.startswith(f"{broken}: text_encoder.{precision}.{engine}: ")
    assert "cannot load it" in failure
    assert told == list(VARIANTS)


def test_threads_are_obeyed(whole_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int | None] = []

    def spy(bundle: Bundle, variant: str, threads: int | None) -> Model:
        counts.append(threads)
        return load(bundle, variant, threads)

    monkeypatch.setattr(module, "load", spy)
    assert selftest(Bundle.open(whole_bundle), VARIANTS, threads=3).passed
    assert selftest(Bundle.open(whole_bundle), ["onnx-fp32"]).passed
    assert counts == [3, 3, 3, None]
    with pytest.raises(InputError, match="threads must be 1 to 256"):
        selftest(Bundle.open(whole_bundle), ["onnx-fp32"], threads=0)


def test_an_unknown_variant_is_told_before_anything_is_checked(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match="no variant 'onnx-int4'"):
        selftest(Bundle.open(bundle), ["onnx-fp32", "onnx-int4"])


def test_a_bundle_without_a_golden_pack_is_told(bundle: Path) -> None:
    (bundle / GOLDEN_FILE).unlink()
    reseal(bundle)
    with pytest.raises(BundleError, match=r"lists no file 'golden/golden\.json'"):
        selftest(Bundle.open(bundle), ["onnx-fp32"])


@pytest.mark.parametrize(
    ("edit", "failure"),
    [
        (lambda g: g["inputs"]["text"][0].update(text=" "), "golden text 0: text 0 is empty"),
        (
            lambda g: g["inputs"]["image"][0].update(file="tokenizer.json"),
            "tokenizer.json: is not a picture of a known form",
        ),
        (
            lambda g: g["inputs"]["image"][0].update(pixels="tokenizer.json"),
            "tokenizer.json: is not a picture of a known fo",
        ),
        (
            lambda g: g["inputs"]["image"][0].update(file="golden/none.png"),
            "the manifest lists no file 'golden/none.png'",
        ),
        (
            lambda g: g["outputs"][IMAGE_PORT][0].update(values=[1e308] * 8),
            "wide.jpg: image_encoder.embedding: cosine",
        ),
    ],
)
def test_a_golden_pack_with_inputs_that_cannot_be_used_is_told(
    bundle: Path, edit: Callable[[Any], None], failure: str
) -> None:
    edit_golden(bundle, edit)
    report = selftest(Bundle.open(bundle), ["onnx-fp32"])
    assert failure in report.failures[0]


def test_labels_that_cannot_be_read_are_told_of_every_variant(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["tasks"]["classify"].update(labels=["", "a", "b"], template="{label}"))
    report = selftest(Bundle.open(bundle), ["onnx-fp32", "tflite-fp32"])
    assert report.failures == ("onnx-fp32: text 0 is empty", "tflite-fp32: text 0 is empty")
