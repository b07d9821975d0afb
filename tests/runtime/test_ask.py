"""Questions about a picture: answers, ranked; what cannot be asked, and bundles that are not right."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import image as images
from pocketvl_runtime import load
from pocketvl_runtime.bench import bench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Manifest
from pocketvl_runtime.obstacles import task_obstacle
from pocketvl_runtime.selftest import selftest
from pocketvl_runtime.text import Tokenizer, TruncatedTextWarning
from tests.runtime import graphs
from tests.runtime.asking import ANSWERS, QUESTIONS, VARIANTS, scores, write_asking_bundle
from tests.runtime.bundles import (
    PREPROCESS,
    TOKENIZER,
    edit_golden,
    edit_manifest,
    reseal,
    tokenizer_json,
    write_bundle,
)
from tests.runtime.test_cli import answer, run

IMAGE = "golden/images/wide.jpg"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_asking_bundle(tmp_path_factory.mktemp("asking") / "tiny")


@pytest.fixture
def asking(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def expected(whole: Path, question: str) -> list[float]:
    """Probabilities of all answers, in plain numpy."""
    pixels = load_pixels(whole / IMAGE, PREPROCESS)
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode([question]).ids[0]
    return list(scores({}, graphs.fusion_logits(pixels, ids)).probability)


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_ranked_by_their_probability(variant: str, whole: Path) -> None:
    report = load(whole, variant).ask(whole / IMAGE, QUESTIONS, top=len(ANSWERS) + 1)
    assert report.variant == variant
    assert [each.question for each in report.results] == list(QUESTIONS)
    for question, result in zip(QUESTIONS, report.results, strict=True):
        probability = dict(zip(ANSWERS, expected(whole, question), strict=True))
        assert [each.answer for each in result.answers] == sorted(ANSWERS, key=lambda a: -probability[a])
        for each in result.answers:
            assert each.probability == pytest.approx(probability[each.answer], abs=1e-5)


def test_one_question_may_be_a_string_and_the_likeliest_answers_are_given(whole: Path) -> None:
    loaded = load(whole)
    (alone,) = loaded.ask(whole / IMAGE, "a red cube").results
    (listed,) = loaded.ask(whole / IMAGE, ["a red cube"], top=2).results
    assert len(alone.answers) == 5
    assert alone.answers[:2] == listed.answers


def test_sigmoid_gives_each_answer_a_probability_of_its_own(asking: Path) -> None:
    (before,) = load(asking).ask(asking / IMAGE, "ball", top=8).results
    edit_manifest(asking, lambda m: m["tasks"]["ask"].update(activation="sigmoid"))
    (after,) = load(asking).ask(asking / IMAGE, "ball", top=8).results
    assert [each.answer for each in before.answers] == [each.answer for each in after.answers]
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode(["ball"]).ids[0]
    logits = graphs.fusion_logits(load_pixels(asking / IMAGE, PREPROCESS), ids)
    for each in after.answers:
        sure = 1 / (1 + np.exp(-logits[ANSWERS.index(each.answer)]))
        assert each.probability == pytest.approx(sure, abs=1e-5)


def test_one_picture_is_preprocessed_once_for_all_its_questions(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    real = images.preprocess

    def counted(picture: Any, processor: Any) -> Any:
        seen.append(picture)
        return real(picture, processor)

    monkeypatch.setattr("pocketvl_runtime.embedding.preprocess", counted)
    loaded = load(whole)
    together = loaded.ask(whole / IMAGE, QUESTIONS)
    assert len(seen) == 1
    assert together.results == tuple(loaded.ask(whole / IMAGE, each).results[0] for each in QUESTIONS)


def test_the_stages_of_the_timing_add_up(whole: Path) -> None:
    timing = dataclasses.asdict(load(whole).ask(whole / IMAGE, QUESTIONS).timing_ms)
    assert list(timing) == ["decode", "preprocess", "tokens", "fusion", "post", "total"]
    total = timing.pop("total")
    assert min(timing.values()) > 0
    assert sum(timing.values()) <= total


# --- what cannot be asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "top", "complaint"),
    [
        ("", 5, "question 0 is empty"),
        (["a ball", " \n"], 5, "question 1 is empty"),
        (["a ball", 3], 5, "question 1 is not a string but int"),
        ([], 5, "at least one question"),
        (None, 5, "questions must be a list of strings, not NoneType"),
        ("a \ud800", 5, "question 0 is not valid Unicode"),
        ("ball " * 60_000, 5, "question 0 has 300000 characters"),
        ("a ball", 0, "top is 0, and at least 1 answer"),
    ],
)
def test_what_is_no_question_is_refused_in_one_line(
    questions: Any, top: int, complaint: str, whole: Path
) -> None:
    with pytest.raises(InputError, match=complaint) as refused:
        load(whole).ask(whole / IMAGE, questions, top)
    assert "\n" not in str(refused.value)


def test_a_question_that_is_too_long_is_cut_and_that_is_told(whole: Path) -> None:
    words = " ".join(["red"] * 40)
    with pytest.warns(TruncatedTextWarning, match="has 42 tokens and the model reads 12"):
        (cut,) = load(whole).ask(whole / IMAGE, words).results
    (short,) = load(whole).ask(whole / IMAGE, " ".join(["red"] * 10)).results
    assert cut.answers == short.answers


def test_a_picture_that_is_none_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.jpg"):
        load(whole).ask(tmp_path / "a.jpg", "a ball")


def test_what_a_model_without_embeddings_cannot_do_is_told(whole: Path) -> None:
    loaded = load(whole)
    assert loaded.space is None
    with pytest.raises(BundleError, match="tiny-vqa gives no embeddings; it can ask"):
        loaded.embed_text(["a"])
    with pytest.raises(BundleError, match="tiny-vqa gives no embeddings; it can ask"):
        loaded.embed_image(whole / IMAGE)
    with pytest.raises(BundleError, match="tiny-vqa has no task 'match'; it has ask"):
        loaded.match(whole / IMAGE, ["a"])


def test_a_model_that_matches_cannot_be_asked(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny")
    with pytest.raises(BundleError, match="tiny has no task 'ask'; it has classify, match"):
        load(bundle).ask(bundle / IMAGE, "a ball")


def test_a_task_is_asked_as_what_it_is(asking: Path) -> None:
    def rename(manifest: Any) -> None:
        manifest["tasks"] = {"match": manifest["tasks"]["ask"]}

    edit_manifest(asking, rename)
    with pytest.raises(BundleError, match="task 'match' is of kind 'labels', not 'contrastive'"):
        load(asking).match(asking / IMAGE, ["a"])


def test_logits_that_are_not_finite_are_no_answer(asking: Path) -> None:
    graphs.onnx_fusion_graph(asking / "graphs" / "fusion.fp32.onnx", float("inf"))
    reseal(asking)
    with pytest.raises(BackendError, match="onnx-fp32: fusion gave NaN or infinity; use another variant"):
        load(asking, "onnx-fp32").ask(asking / IMAGE, "a ball")
    load(asking, "onnx-fp32", allow_non_finite=True).ask(asking / IMAGE, "a ball")
    assert load(asking, "tflite-fp32").ask(asking / IMAGE, "a ball").results


# --- manifests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda m: m["tasks"]["ask"]["labels"].pop(), r"7 labels stand for the logits 'logits'"),
        (lambda m: m["tasks"]["ask"].update(labels=[]), "labels is empty"),
        (lambda m: m["tasks"]["ask"].update(labels=["x" * 1001, *ANSWERS[1:]]), "more than 1000 characters"),
        (lambda m: m["tasks"]["ask"].update(labels="yes or no"), r"tasks\.ask\.labels"),
        (lambda m: m["tasks"]["ask"].update(logits="fusion.other"), "which is no output of graphs"),
        (lambda m: m["tasks"]["ask"].update(activation="loudest"), r"tasks\.ask\.activation"),
        (lambda m: m["tasks"]["ask"].pop("activation"), r"tasks\.ask"),
        (
            lambda m: m["graphs"]["fusion"]["outputs"][0].update(kind="embedding", space="a"),
            "whose kind is embedding, not class_logits",
        ),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(shape=[8]), "8 labels stand for"),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(shape=[2, 8]), "8 labels stand for"),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(dtype="int32"), "8 labels stand for"),
        (
            lambda m: m["graphs"]["fusion"]["inputs"][1].update({"from": "words"}),
            "which is none of processors",
        ),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    edit: Callable[[Any], Any], complaint: str, asking: Path
) -> None:
    edit_manifest(asking, edit)
    with pytest.raises(BundleError, match=complaint):
        Bundle.open(asking)


@pytest.mark.parametrize(
    ("edit", "obstacle"),
    [
        (lambda m: m["graphs"]["fusion"]["inputs"].pop(), "labels tasks of image"),
        (lambda m: m["graphs"]["fusion"]["inputs"].pop(0), "labels tasks of tokenizers"),
        (
            lambda m: m["graphs"]["fusion"]["inputs"][1].pop("from"),
            "fusion, whose inputs are not all made by processors",
        ),
        (lambda m: m["processors"]["image"].update(alpha="drop"), "alpha 'drop'"),
        (
            lambda m: m["processors"]["text"].update(prompt=[{"kind": "text"}]),
            "prompts",
        ),
    ],
)
def test_what_this_runtime_cannot_run_of_it_is_told(
    edit: Callable[[Any], Any], obstacle: str, asking: Path
) -> None:
    edit_manifest(asking, edit)
    assert task_obstacle(Manifest.read(asking / "manifest.json"), "ask") == obstacle
    with pytest.raises(BundleError, match=f"task 'ask': this runtime cannot run {obstacle}; install"):
        load(asking)


# --- selftest and bench ------------------------------------------------------------------------------


def test_the_selftest_checks_pixels_ids_logits_and_answers(whole: Path) -> None:
    report = selftest(Bundle.open(whole), VARIANTS)
    assert (report.failures, report.notes) == ((), ())
    assert (report.files, report.images, report.texts, report.answers) == (8, 2, 3, 3)


def _first_answer(golden: Any) -> Any:
    return golden["answers"]["ask"][0]


@pytest.mark.parametrize(
    ("edit", "failure"),
    [
        (lambda g: g["inputs"]["text"][1]["ids"].reverse(), "golden text 1: the token ids differ"),
        (lambda g: g["outputs"]["fusion.logits"][0]["values"].reverse(), "fusion.logits: cosine"),
        (
            lambda g: _first_answer(g)["probability"].reverse(),
            "ask of golden/images/wide.jpg and golden text 0: a probability is off by",
        ),
        (lambda g: _first_answer(g)["probability"].pop(), "8 scores, expected 7"),
        (lambda g: _first_answer(g).update(answer="ball"), "is answered, 'ball' expected"),
        (lambda g: _first_answer(g).pop("answer"), "is answered, None expected"),
        (lambda g: _first_answer(g)["inputs"].pop("text"), "the task does not take that"),
        (lambda g: g["tolerance"]["onnx-fp32"]["answers"].clear(), "no tolerance for answers of ask"),
        (lambda g: g["answers"].clear(), "no answer of task 'ask'"),
    ],
)
def test_a_golden_pack_that_does_not_hold_is_a_failure(
    edit: Callable[[Any], Any], failure: str, asking: Path
) -> None:
    edit_golden(asking, edit)
    report = selftest(Bundle.open(asking), ["onnx-fp32"])
    assert any(failure in each for each in report.failures), report.failures


def test_labels_in_another_order_are_noticed(asking: Path) -> None:
    edit_manifest(asking, lambda m: m["tasks"]["ask"]["labels"].reverse())
    failures = selftest(Bundle.open(asking), ["onnx-fp32"]).failures
    assert len(failures) == len(QUESTIONS)
    assert all("is answered, " in each for each in failures)


def test_a_bench_times_questions(whole: Path) -> None:
    result = bench(Bundle.open(whole), VARIANTS, [1], runs=3)
    for measured in result.variants.values():
        (timing,) = measured.timings
        assert list(timing.stages) == ["decode", "preprocess", "tokens", "fusion", "post", "total"]
        assert timing.stages["total"].median >= timing.stages["fusion"].median > 0


# --- command line ------------------------------------------------------------------------------------


def test_ask_prints_one_object_with_exactly_these_keys(whole: Path) -> None:
    given = ("ask", whole, "--image", whole / IMAGE, "--question", "a red cube", "--question", "ball")
    got = answer(*given, "--top", "2", "--variant", "onnx-fp32", "--threads", "1", "--json")
    assert list(got) == ["variant", "results", "timing_ms"]
    assert [list(each) for each in got["results"]] == [["question", "answers"]] * 2
    assert [each["question"] for each in got["results"]] == ["a red cube", "ball"]
    assert [[list(a) for a in each["answers"]] for each in got["results"]] == [
        [["answer", "probability"]] * 2
    ] * 2
    assert list(got["timing_ms"]) == ["decode", "preprocess", "tokens", "fusion", "post", "total"]
    (first, _) = load(whole, "onnx-fp32").ask(whole / IMAGE, ["a red cube", "ball"], 2).results
    assert got["results"][0]["answers"] == [dataclasses.asdict(each) for each in first.answers]


def test_ask_for_people_has_each_question_above_its_answers(whole: Path) -> None:
    done = run("ask", whole, "--image", whole / IMAGE, "--question", "a red cube", "--question", "ball")
    lines = done.stdout.splitlines()
    assert lines[0] == "a red cube"
    assert lines[6] == "ball"
    assert [line.split()[0] for line in lines[1:6]] == [
        each.answer for each in load(whole).ask(whole / IMAGE, "a red cube").results[0].answers
    ]
    assert all("%" in line for line in (*lines[1:6], *lines[7:]))
    assert "tflite-fp32" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--question", ""], 1, "question 0 is empty"),
        ([], 2, "Missing option '--question'"),
        (["--question", "a ball", "--top", "0"], 2, "0 is not in the range"),
    ],
)
def test_a_wrong_question_is_one_line_and_an_exit_status(
    arguments: list[str], code: int, complaint: str, whole: Path
) -> None:
    done = run("ask", whole, "--image", whole / IMAGE, *arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_info_selftest_and_embed_know_such_a_bundle(whole: Path) -> None:
    told = run("info", whole).stdout
    assert "tiny-vqa (vilt): ask" in told
    assert "fusion: gives logits [1, 8]" in told
    assert json.loads(run("info", whole, "--json").stdout)["tasks"] == {
        "ask": {"kind": "labels", "obstacle": None}
    }
    assert "3 answers, onnx-fp32, tflite-fp32: all good" in run("selftest", whole).stdout
    done = run("embed", whole, "--text", "a ball")
    assert done.returncode == 1
    assert "tiny-vqa gives no embeddings; it can ask" in done.stderr
