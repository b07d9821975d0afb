"""Texts that are read together with a picture: probabilities, what is asked first, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import load
from pocketvl_runtime.bench import bench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Manifest, PortKind
from pocketvl_runtime.obstacles import runnable_components, task_obstacle
from pocketvl_runtime.selftest import selftest
from tests.runtime import graphs
from tests.runtime.bundles import PREPROCESS, TEXTS, edit_golden, edit_manifest, reseal
from tests.runtime.reranking import VARIANTS, fit, write_reranking_bundle
from tests.runtime.test_cli import answer, run

IMAGE = "golden/images/wide.jpg"
MORE = (*TEXTS, "a red ball", "the photo of a green cube")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranking_bundle(tmp_path_factory.mktemp("reranking") / "tiny")


@pytest.fixture
def reranking(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_text_has_a_probability_of_its_own_and_the_likeliest_comes_first(
    variant: str, whole: Path
) -> None:
    report = load(whole, variant).rerank(whole / IMAGE, MORE)
    assert report.variant == variant
    pixels = load_pixels(whole / IMAGE, PREPROCESS)
    wanted = {text: fit(pixels, text) for text in MORE}
    assert len({round(each, 3) for each in wanted.values()}) > 2
    assert [each.text for each in report.results] == sorted(MORE, key=lambda text: -wanted[text])
    for each in report.results:
        assert each.probability == pytest.approx(wanted[each.text], abs=1e-4)
        assert each.similarity is None


@pytest.mark.parametrize("top", [1, 2, 9])
def test_top_reads_only_what_match_finds_most_similar(top: int, whole: Path) -> None:
    loaded = load(whole)
    matched = {each.text: each.similarity for each in loaded.match(whole / IMAGE, MORE).results}
    found = loaded.rerank(whole / IMAGE, MORE, top).results
    nearest = sorted(MORE, key=lambda text: -matched[text])[:top]
    assert {each.text for each in found} == set(nearest)
    every = {each.text: each.probability for each in loaded.rerank(whole / IMAGE, MORE).results}
    for each in found:
        assert each.similarity == pytest.approx(matched[each.text], abs=1e-6)
        assert each.probability == pytest.approx(every[each.text], abs=1e-6)


def test_the_image_encoder_runs_once_for_all_texts(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(whole)
    ran: list[str] = []
    real = loaded.run

    def counted(component: str, made: Any) -> Any:
        ran.append(component)
        return real(component, made)

    monkeypatch.setattr(loaded, "run", counted)
    loaded.rerank(whole / IMAGE, MORE, top=3)
    assert ran == ["image_encoder", *["text_encoder"] * 5, *["fusion"] * 3]


def test_a_component_runs_what_it_reads_from_where_that_was_not_run(whole: Path) -> None:
    loaded = load(whole, "onnx-fp32")
    pixels = load_pixels(whole / IMAGE, PREPROCESS)
    ids = loaded.tokenizer.encode(["a red cube"]).ids
    texts = {"text": {PortKind.TOKEN_IDS: ids}}
    hidden = {"image_encoder.hidden": {PortKind.HIDDEN: graphs.image_hidden(pixels)}}
    before = loaded.run("fusion", {**texts, "image": {PortKind.PIXELS: pixels[None]}})["logits"]
    np.testing.assert_allclose(loaded.run("fusion", {**texts, **hidden})["logits"], before, atol=1e-3)
    with pytest.raises(InputError, match="image_encoder needs pixels of image"):
        loaded.run("fusion", texts)


def test_a_sigmoid_is_of_the_positive_logit_alone(reranking: Path) -> None:
    edit_manifest(reranking, lambda m: m["tasks"]["rerank"].update(activation="sigmoid", positive_index=0))
    (found,) = load(reranking).rerank(reranking / IMAGE, ["ball"]).results
    hidden = graphs.image_hidden(load_pixels(reranking / IMAGE, PREPROCESS))
    ids = load(reranking).tokenizer.encode(["ball"]).ids[0]
    assert found.probability == pytest.approx(1 / (1 + np.exp(-graphs.fit_logits(hidden, ids)[0])), abs=1e-4)


def test_match_and_embeddings_are_as_without_it(whole: Path) -> None:
    loaded = load(whole)
    assert loaded.components == {"image_encoder", "text_encoder", "fusion"}
    assert len(loaded.match(whole / IMAGE, TEXTS).results) == len(TEXTS)
    assert loaded.embed_image(whole / IMAGE).shape == (graphs.DIM,)


def test_the_stages_of_the_timing_add_up(whole: Path) -> None:
    timing = dataclasses.asdict(load(whole).rerank(whole / IMAGE, TEXTS, top=2).timing_ms)
    assert list(timing) == ["decode", "preprocess", "tokens", "image", "text", "fusion", "post", "total"]
    total = timing.pop("total")
    assert min(timing.values()) > 0
    assert sum(timing.values()) <= total


# --- what cannot be asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "top", "complaint"),
    [
        ([], None, "at least one text"),
        (["a", " "], None, "text 1 is empty"),
        (["a"], 0, "top is 0, and at least 1 text"),
    ],
)
def test_what_is_wrong_is_one_line(texts: Any, top: int | None, complaint: str, whole: Path) -> None:
    with pytest.raises(InputError, match=complaint) as refused:
        load(whole).rerank(whole / IMAGE, texts, top)
    assert "\n" not in str(refused.value)


def test_top_needs_a_task_to_rerank(reranking: Path) -> None:
    edit_manifest(reranking, lambda m: m["tasks"]["rerank"].pop("reranks"))
    loaded = load(reranking)
    assert loaded.rerank(reranking / IMAGE, TEXTS).results
    with pytest.raises(BundleError, match="does not say which task is reranked"):
        loaded.rerank(reranking / IMAGE, TEXTS, 1)
    edit_manifest(reranking, lambda m: m["tasks"]["rerank"].update(reranks="rerank"))
    with pytest.raises(BundleError, match="task 'rerank' is of kind 'match', not 'contrastive'"):
        load(reranking).rerank(reranking / IMAGE, TEXTS, 1)


def test_hidden_states_that_are_not_finite_are_no_answer(reranking: Path) -> None:
    graphs.onnx_seeing_graph(reranking / "graphs" / "image_encoder.fp32.onnx", float("inf"))
    reseal(reranking)
    with pytest.raises(BackendError, match="onnx-fp32: fusion gave NaN or infinity; use another variant"):
        load(reranking, "onnx-fp32").rerank(reranking / IMAGE, ["a"])


def test_a_variant_whose_logits_are_too_few_is_refused(reranking: Path) -> None:
    graphs.onnx_fit_graph(reranking / "graphs" / "fusion.fp32.onnx", logits=1)
    reseal(reranking)
    ports = {"logits": {"shape": [1, 1]}}
    edit_manifest(reranking, lambda m: m["variants"]["onnx-fp32"]["files"]["fusion"].update(ports=ports))
    with pytest.raises(BackendError, match="fusion.logits are 1, and number 1 says whether a text fits"):
        load(reranking, "onnx-fp32").rerank(reranking / IMAGE, TEXTS)
    report = selftest(Bundle.open(reranking), ["onnx-fp32"])
    assert any("fusion.logits are 1" in each for each in report.failures)
    assert load(reranking, "tflite-fp32").rerank(reranking / IMAGE, TEXTS).results


def test_a_variant_without_the_component_still_matches(reranking: Path) -> None:
    edit_manifest(reranking, lambda m: m["variants"]["onnx-fp32"]["files"].pop("fusion"))
    loaded = load(reranking, "onnx-fp32")
    assert loaded.match(reranking / IMAGE, TEXTS).results
    with pytest.raises(BundleError, match="variant onnx-fp32 has no fusion"):
        loaded.rerank(reranking / IMAGE, TEXTS)


# --- manifests ---------------------------------------------------------------------------------------


def _hidden(manifest: Any) -> Any:
    return manifest["graphs"]["fusion"]["inputs"][0]


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda m: _hidden(m).update({"from": "image_encoder.states"}), "which is no output of graphs"),
        (lambda m: _hidden(m).update({"from": "vision.hidden"}), "which is no output of graphs"),
        (lambda m: _hidden(m).update(shape=[1, 3, 4]), r"image_encoder.hidden gives 'hidden' hidden float32"),
        (lambda m: _hidden(m).update(shape=[2, 4]), "image_encoder.hidden gives 'hidden' hidden float32"),
        (lambda m: _hidden(m).update(dtype="float16"), "image_encoder.hidden gives 'hidden' hidden float32"),
        (lambda m: _hidden(m).update(kind="pixels"), "image_encoder.hidden gives 'hidden' hidden float32"),
        (
            lambda m: _hidden(m).update({"from": "image_encoder.embedding"}),
            "image_encoder.embedding gives 'embedding' embedding",
        ),
        (lambda m: m["tasks"]["rerank"].update(logits="fusion.fits"), "which is no output of graphs"),
        (lambda m: m["tasks"]["rerank"].update(logits="image_encoder.hidden"), "hidden, not class_logits"),
        (lambda m: m["tasks"]["rerank"].update(positive_index=2), "is none of the logits"),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(shape=[1, 4, 2]), r"one float \[1, N\] is"),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(shape=[2]), r"one float \[1, N\] is"),
        (lambda m: m["graphs"]["fusion"]["outputs"][0].update(dtype="int32"), r"one float \[1, N\] is"),
        (lambda m: m["tasks"]["rerank"].update(reranks="search"), "which is none of tasks"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    edit: Callable[[Any], Any], complaint: str, reranking: Path
) -> None:
    edit_manifest(reranking, edit)
    with pytest.raises(BundleError, match=complaint) as refused:
        Bundle.open(reranking)
    assert "\n" not in str(refused.value)


def _itself(manifest: Any) -> None:
    states = {"name": "states", "dtype": "float32", "shape": [1, *graphs.HIDDEN], "kind": "hidden"}
    manifest["graphs"]["fusion"]["outputs"].append(states)
    _hidden(manifest).update({"from": "fusion.states"})


def _each_other(manifest: Any) -> None:
    back = {"name": "back", "dtype": "float32", "shape": [1, *graphs.HIDDEN], "kind": "hidden"}
    manifest["graphs"]["fusion"]["outputs"].append(back)
    manifest["graphs"]["image_encoder"]["inputs"].append({**back, "from": "fusion.back"})


def _read_from_texts(manifest: Any) -> None:
    states = {"name": "states", "dtype": "float32", "shape": [1, *graphs.HIDDEN], "kind": "hidden"}
    manifest["graphs"]["text_encoder"]["outputs"].append(states)
    manifest["graphs"]["fusion"]["inputs"].append({**states, "from": "text_encoder.states"})


_NOT_MADE = "fusion, whose inputs are not all made by processors, or by one component that sees or hears"


@pytest.mark.parametrize(
    ("edit", "obstacle"),
    [
        (_itself, _NOT_MADE),
        (_each_other, _NOT_MADE),
        (_read_from_texts, _NOT_MADE),
        (lambda m: _hidden(m).pop("from"), _NOT_MADE),
        (lambda m: m["graphs"]["fusion"]["inputs"].pop(), "match tasks of image"),
        (lambda m: m["graphs"]["fusion"]["inputs"].pop(0), "match tasks of tokenizers"),
    ],
)
def test_what_this_runtime_cannot_run_of_it_is_told_and_the_rest_answers(
    edit: Callable[[Any], Any], obstacle: str, reranking: Path
) -> None:
    edit_manifest(reranking, edit)
    manifest = Manifest.read(reranking / "manifest.json")
    assert task_obstacle(manifest, "rerank") == obstacle
    assert "fusion" not in runnable_components(manifest)
    if task_obstacle(manifest, "match") is not None:
        return  # what the image encoder reads is not there without the other
    report = selftest(Bundle.open(reranking), ["onnx-fp32"])
    assert report.notes == (f"task 'rerank' is not checked: this runtime cannot run {obstacle}",)


# --- selftest and bench ------------------------------------------------------------------------------


def test_the_selftest_checks_both_tasks(whole: Path) -> None:
    report = selftest(Bundle.open(whole), VARIANTS)
    assert (report.failures, report.notes) == ((), ())
    assert (report.images, report.texts, report.answers) == (2, 3, 5)


@pytest.mark.parametrize(
    ("edit", "failure"),
    [
        (lambda g: g["outputs"]["fusion.logits"][0]["values"].reverse(), "fusion.logits: cosine"),
        (
            lambda g: g["answers"]["rerank"][0].update(probability=[0.5]),
            "rerank of golden/images/wide.jpg and golden text 0: a probability is off by",
        ),
        (lambda g: g["answers"]["rerank"][0].update(probability=[0.5, 0.5]), "1 scores, expected 2"),
        (lambda g: g["answers"]["rerank"][0]["inputs"].pop("text"), "the task does not take that"),
        (lambda g: g["answers"].pop("rerank"), "no answer of task 'rerank'"),
        (
            lambda g: g["tolerance"]["onnx-fp32"]["answers"].pop("rerank"),
            "no tolerance for answers of rerank",
        ),
    ],
)
def test_a_golden_pack_that_does_not_hold_is_a_failure(
    edit: Callable[[Any], Any], failure: str, reranking: Path
) -> None:
    edit_golden(reranking, edit)
    report = selftest(Bundle.open(reranking), ["onnx-fp32"])
    assert any(failure in each for each in report.failures), report.failures


def test_golden_texts_none_of_which_can_be_used_are_a_failure_of_each_task(reranking: Path) -> None:
    def emptied(golden: Any) -> None:
        for each in golden["inputs"]["text"]:
            each["text"] = " "

    edit_golden(reranking, emptied)
    failures = selftest(Bundle.open(reranking), ["onnx-fp32"]).failures
    assert any("golden text 0: text 0 is empty" in each for each in failures)
    assert any("match of golden/images/wide.jpg: no input of the other side" in each for each in failures)


def test_the_other_logit_is_noticed(reranking: Path) -> None:
    edit_manifest(reranking, lambda m: m["tasks"]["rerank"].update(positive_index=0))
    failures = selftest(Bundle.open(reranking), ["onnx-fp32"]).failures
    assert len(failures) == len(TEXTS)


def test_a_bench_runs_every_graph_and_tells_their_operators(whole: Path) -> None:
    result = bench(Bundle.open(whole), ["onnx-fp32"], [1], runs=2, ops=True)
    (measured,) = result.variants.values()
    (timing,) = measured.timings
    assert list(timing.stages) == [
        "decode",
        "preprocess",
        "tokens",
        "image",
        "text",
        "fusion",
        "post",
        "total",
    ]
    assert {graph.component for graph in measured.graphs} == {"image_encoder", "text_encoder", "fusion"}


# --- command line ------------------------------------------------------------------------------------


def test_rerank_prints_one_object_with_exactly_these_keys(whole: Path) -> None:
    given = ("rerank", whole, "--image", whole / IMAGE, "--text", "a red cube", "--text", "ball")
    got = answer(*given, "--top", "1", "--variant", "onnx-fp32", "--threads", "1", "--json")
    assert list(got) == ["variant", "results", "timing_ms"]
    assert [list(each) for each in got["results"]] == [["text", "probability", "similarity"]]
    (first,) = load(whole, "onnx-fp32").rerank(whole / IMAGE, ["a red cube", "ball"], 1).results
    assert got["results"] == [dataclasses.asdict(first)]


def test_rerank_for_people_is_ranked_and_says_what_is_missing(whole: Path) -> None:
    done = run("rerank", whole, "--image", whole / IMAGE, "--text", "a red cube", "--text", "ball")
    found = load(whole).rerank(whole / IMAGE, ["a red cube", "ball"]).results
    assert [line.split("  ")[0].strip() for line in done.stdout.splitlines()] == [e.text for e in found]
    assert "tflite-fp32" in done.stderr
    assert run("rerank", whole, "--image", whole / IMAGE).returncode == 2
    refused = run("rerank", whole, "--audio", whole / IMAGE, "--text", "a")
    assert (refused.returncode, "takes pictures, not sounds" in refused.stderr) == (1, True)
