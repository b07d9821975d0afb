"""`load` picks a variant, and the model answers as its graphs compute."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import BackendWarning, backends, load, variant_choice
from pocketvl_runtime.backends import onnx
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Engine
from pocketvl_runtime.text import TruncatedTextWarning
from tests.runtime import graphs
from tests.runtime.bundles import LOGIT_SCALE, PREPROCESS, TEXTS, VARIANTS, edit_manifest, picture, reseal

IMAGE = "golden/images/wide.jpg"


def only(monkeypatch: pytest.MonkeyPatch, *engines: Engine) -> None:
    hidden = {name for engine in Engine if engine not in engines for name in backends._IMPORTS[engine]}
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name in hidden else find_spec(name))


def promote(bundle: Path, *names: str) -> None:
    """Leaves only these of `names` accepted."""

    def edit(manifest: Any) -> None:
        for name, variant in manifest["variants"].items():
            variant["status"] = "accepted" if name in names else "experimental"

    edit_manifest(bundle, edit)


def test_int8_comes_before_fp32_and_tflite_before_onnx(bundle: Path) -> None:
    assert load(bundle).variant == "onnx-int8"
    promote(bundle, "onnx-fp32", "tflite-fp32")
    assert load(bundle).variant == "tflite-fp32"
    promote(bundle, "onnx-fp32")
    assert load(bundle).variant == "onnx-fp32"


def test_experimental_variants_run_only_when_they_are_named(bundle: Path) -> None:
    promote(bundle)
    with pytest.raises(
        BackendError, match="no accepted variant of .* name one of onnx-fp32, onnx-int8, tflite-fp32"
    ):
        load(bundle)
    assert load(bundle, "onnx-int8").variant == "onnx-int8"


def test_where_only_experimental_variants_can_run_it_is_said_which_and_what_to_install(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(bundle, "tflite-fp32")
    only(monkeypatch, Engine.ONNX)
    with pytest.raises(
        BackendError, match=r"pip install ai-edge-litert, or name one of onnx-fp32, onnx-int8, w"
    ):
        load(bundle)
    promote(bundle)
    only(monkeypatch)
    with pytest.raises(BackendError, match="can run here: pip install onnxruntime or ai-edge-litert$"):
        load(bundle)
    promote(bundle, "onnx-fp32")
    with pytest.raises(BackendError, match="can run here: pip install onnxruntime$"):
        load(bundle)


def test_a_bundle_without_variants_says_so(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m.update(variants={}))
    with pytest.raises(BundleError, match="holds no variant; export the bundle again"):
        load(bundle)


def test_an_engine_of_its_own_comes_before_a_stand_in(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(bundle, "onnx-fp32", "tflite-fp32")
    monkeypatch.setattr(variant_choice, "is_stand_in", lambda graph: graph.engine is Engine.TFLITE)
    assert load(bundle).variant == "onnx-fp32"
    promote(bundle, "tflite-fp32")
    assert load(bundle).variant == "tflite-fp32"


def test_what_an_engine_does_at_a_cost_is_a_warning(
    whole_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "has_exact_int8", lambda: False)
    with pytest.warns(BackendWarning, match="costs some speed") as caught:
        loaded = load(whole_bundle, "onnx-int8")
    assert [str(warning.message) for warning in caught] == list(loaded.notes)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(whole_bundle, "onnx-fp32")


def test_only_variants_whose_engine_is_installed_are_picked(
    whole_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Engine.TFLITE)
    assert load(whole_bundle).variant == "tflite-fp32"
    with pytest.raises(BackendError, match=r"pip install onnxruntime \(with .* these run: tflite-fp32\)"):
        load(whole_bundle, "onnx-int8")
    only(monkeypatch)
    with pytest.raises(BackendError, match="pip install onnxruntime or ai-edge-litert"):
        load(whole_bundle)


@pytest.mark.parametrize("name", ["", "onnx-int4"])
def test_an_unknown_variant_lists_those_there_are(whole_bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"no variant '{name}'; it has onnx-fp32, onnx-int8, tflite-fp32"):
        load(whole_bundle, name)


def test_threads_are_at_most_four_by_default_and_never_nought(
    whole_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, expected in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(variant_choice, "usable_processors", lambda count=count: count)
        assert load(whole_bundle).threads == expected
    assert load(whole_bundle, threads=2).threads == 2
    for count in (0, -1, 257, 10**9):
        with pytest.raises(InputError, match=f"threads must be 1 to 256, not {count}"):
            load(whole_bundle, threads=count)


def test_files_are_checked_before_an_engine_sees_them(bundle: Path) -> None:
    path = bundle / "graphs" / "image_encoder.int8.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"image_encoder\.int8\.onnx is damaged"):
        load(bundle, "onnx-int8")
    assert load(bundle, "onnx-fp32").variant == "onnx-fp32"


def test_an_engine_gets_the_very_bytes_that_were_checked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = bundle / "graphs" / "image_encoder.fp32.onnx"
    real = Bundle.read

    def read(self: Bundle, path: str) -> bytes:
        content = real(self, path)
        if path == "graphs/image_encoder.fp32.onnx":
            graph.write_bytes(b"swapped after the check")
        return content

    monkeypatch.setattr(Bundle, "read", read)
    assert load(bundle, "onnx-fp32").embed_image(bundle / IMAGE).shape == (graphs.DIM,)
    assert graph.read_bytes() == b"swapped after the check"


def test_the_first_picture_does_not_pay_for_the_decoders_import(whole_bundle: Path) -> None:
    code = (
        "import sys; from pocketvl_runtime import load; load(sys.argv[1], 'onnx-fp32')\n"
        "assert {'PIL.JpegImagePlugin', 'PIL.PngImagePlugin'} <= set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(whole_bundle)], check=True)


@pytest.mark.parametrize(
    ("scale", "length", "message"),
    [
        (float("inf"), 1.0, "onnx-fp32: image_encoder gave NaN or infinity; use another variant"),
        (1.0, float("inf"), "onnx-fp32: image_encoder gave NaN or infinity"),
        (1.0, 1.02, "onnx-fp32: image_encoder gave a vector of length 1.02 where 1 is right"),
        (1.0, 0.98, "of length 0.98"),
        (1.0, 0.0, "of length 0 "),
    ],
)
def test_answers_that_cannot_be_right_are_an_error_unless_they_are_asked_for(
    bundle: Path, scale: float, length: float, message: str
) -> None:
    graphs.onnx_image_graph(bundle / "graphs" / "image_encoder.fp32.onnx", scale, length)
    reseal(bundle)
    with pytest.raises(BackendError, match=message):
        load(bundle, "onnx-fp32").embed_image(bundle / IMAGE)
    got = load(bundle, "onnx-fp32", allow_non_finite=True).embed_image(bundle / IMAGE)
    assert got.shape == (graphs.DIM,)


def test_a_rounded_norm_is_no_error(bundle: Path) -> None:
    graphs.onnx_image_graph(bundle / "graphs" / "image_encoder.fp32.onnx", length=1.005)
    reseal(bundle)
    assert load(bundle, "onnx-fp32").embed_image(bundle / IMAGE).shape == (graphs.DIM,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_embeddings_are_what_the_graphs_compute(whole_bundle: Path, variant: str) -> None:
    loaded = load(whole_bundle, variant)
    pixels = load_pixels(whole_bundle / IMAGE, PREPROCESS)
    image = loaded.embed_image(whole_bundle / IMAGE)
    assert image.shape == (graphs.DIM,)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, graphs.image_embedding(pixels), atol=2e-6)
    np.testing.assert_array_equal(image, loaded.embed_pixels(pixels))
    texts = loaded.embed_text(TEXTS)
    assert texts.shape == (len(TEXTS), graphs.DIM)
    ids = loaded.tokenizer.encode(TEXTS).ids
    np.testing.assert_allclose(texts, [graphs.text_embedding(row) for row in ids], atol=2e-6)
    assert loaded.embed_text([]).shape == (0, graphs.DIM)


def test_match_scores_texts_in_the_order_given(whole_bundle: Path) -> None:
    loaded = load(whole_bundle)
    report = loaded.match(whole_bundle / IMAGE, TEXTS)
    expected = loaded.embed_text(TEXTS) @ loaded.embed_image(whole_bundle / IMAGE)
    assert [row.text for row in report.results] == list(TEXTS)
    np.testing.assert_allclose([row.similarity for row in report.results], expected, atol=1e-6)
    powers = np.exp(LOGIT_SCALE * expected.astype(np.float64))
    np.testing.assert_allclose([row.probability for row in report.results], powers / powers.sum(), rtol=1e-5)
    assert report.variant == "onnx-int8"


def test_the_stages_of_the_timing_add_up(whole_bundle: Path) -> None:
    timing = dataclasses.asdict(load(whole_bundle).match(whole_bundle / IMAGE, TEXTS).timing_ms)
    assert list(timing) == ["decode", "preprocess", "tokens", "image", "text", "post", "total"]
    total = timing.pop("total")
    assert min(timing.values()) > 0
    assert sum(timing.values()) <= total < sum(timing.values()) + 50


def test_classify_fills_the_template(whole_bundle: Path) -> None:
    loaded = load(whole_bundle)
    for labels, chosen in (
        (None, ("red cube", "blue ball", "green")),
        (["ball", "{cube}"], ("ball", "{cube}")),
    ):
        report = loaded.classify(whole_bundle / IMAGE, labels)
        matched = loaded.match(whole_bundle / IMAGE, [f"a photo of a {label}" for label in chosen])
        assert [row.label for row in report.results] == list(chosen)
        assert [row.probability for row in report.results] == [row.probability for row in matched.results]


def test_several_templates_make_a_label_of_their_mean(whole_bundle: Path) -> None:
    loaded, labels = load(whole_bundle), ("ball", "cube")
    templates = ("a photo of a {label}", "the {label}", "{label}")
    report = loaded.classify(whole_bundle / IMAGE, labels, templates)
    image = loaded.embed_image(whole_bundle / IMAGE).astype(np.float64)
    for row, label in zip(report.results, labels, strict=True):
        texts = loaded.embed_text([template.replace("{label}", label) for template in templates])
        mean = texts.astype(np.float64).mean(axis=0)
        assert row.similarity == pytest.approx(float(image @ mean / np.linalg.norm(mean)), abs=1e-9)
    assert sum(row.probability for row in report.results) == pytest.approx(1)
    alone = loaded.classify(whole_bundle / IMAGE, labels, ["a photo of a {label}"])
    assert alone.results == loaded.classify(whole_bundle / IMAGE, labels).results


@pytest.mark.parametrize(
    ("templates", "message"),
    [([], "0 templates"), (["a cat"], "no {label} in it"), ("{label}", "must be a list"), ([""], "is empty")],
)
def test_templates_are_checked(whole_bundle: Path, templates: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(whole_bundle).classify(whole_bundle / IMAGE, ["cube"], templates)


def test_a_bundle_without_labels_asks_for_some(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["tasks"]["classify"].update(labels=[]))
    with pytest.raises(InputError, match="no labels of its own"):
        load(bundle).classify(bundle / IMAGE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([""], "label 0 is empty"),
        ("cube", "labels must be a list"),
        (["a", "\udcff"], "label 1 is not valid Unicode"),
    ],
)
def test_labels_are_checked_before_the_template_hides_what_is_wrong(
    whole_bundle: Path, labels: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(whole_bundle).classify(whole_bundle / IMAGE, labels)


@pytest.mark.parametrize(("texts", "message"), [([], "at least one text"), ("cube", "texts must be a list")])
def test_match_needs_a_list_of_texts(whole_bundle: Path, texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(whole_bundle).match(whole_bundle / IMAGE, texts)


def test_a_cut_text_is_warned_of(whole_bundle: Path) -> None:
    loaded = load(whole_bundle)
    with pytest.warns(TruncatedTextWarning, match="text 1 has 42 tokens"):
        loaded.match(picture((20, 20)), ["ball", "ball " * 40])
    with pytest.warns(TruncatedTextWarning, match="text 0 has 42 tokens"):
        loaded.embed_text(["ball " * 40])


def test_a_variant_without_a_component_says_so(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["variants"]["onnx-int8"]["files"].pop("text_encoder"))
    loaded = load(bundle)
    assert loaded.embed_image(bundle / IMAGE).shape == (graphs.DIM,)
    with pytest.raises(BundleError, match="variant onnx-int8 has no text_encoder"):
        loaded.embed_text(["ball"])


def need_mask(bundle: Path, *variants: str) -> None:
    """Makes the family one that needs the mask, and leaves only these variants."""

    def edit(manifest: Any) -> None:
        manifest["variants"] = {name: manifest["variants"][name] for name in variants}
        inputs = manifest["graphs"]["text_encoder"]["inputs"]
        inputs.append(inputs[0] | {"name": "mask", "kind": "attention_mask"})

    edit_manifest(bundle, edit)
    reseal(bundle)


def test_a_model_that_needs_the_mask_does_not_run_without(bundle: Path) -> None:
    graphs.onnx_text_graph(bundle / "graphs" / "text_encoder.fp32.onnx", masked=True)
    need_mask(bundle, "onnx-fp32")
    loaded = load(bundle)
    encoding = loaded.tokenizer.encode(["ball"])
    with pytest.raises(InputError, match="text_encoder needs attention_mask of text as 'mask'"):
        loaded.embed_ids(encoding.ids[0])
    got = loaded.embed_ids(encoding.ids[0], encoding.mask[0])
    np.testing.assert_allclose(got, graphs.text_embedding(encoding.ids[0]), atol=2e-6)


@pytest.mark.parametrize("variant", ["onnx-fp32", "tflite-fp32"])
def test_a_graph_without_the_mask_that_the_manifest_names_is_refused(bundle: Path, variant: str) -> None:
    need_mask(bundle, variant)
    with pytest.raises(BackendError, match=r"text_encoder\.fp32\.\w+:? .*mask"):
        load(bundle)


def test_an_opened_bundle_is_taken_too(whole_bundle: Path) -> None:
    assert load(Bundle.open(whole_bundle)).manifest.model.name == "tiny"


def test_answering_loads_nothing_heavy_and_only_one_engine(whole_bundle: Path) -> None:
    code = (
        "import json, sys\n"
        "from pocketvl_runtime import load\n"
        "report = load(sys.argv[1], sys.argv[2]).match(sys.argv[3], ['a red cube', 'green'])\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))\n"
    )
    heavy = {
        "torch",
        "onnx",
        "tensorflow",
        "transformers",
        "pocketvl",
        "scipy",
        "onnxruntime",
        "ai_edge_litert",
    }
    for variant, engine in (("onnx-int8", "onnxruntime"), ("tflite-fp32", "ai_edge_litert")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(whole_bundle), variant, str(whole_bundle / IMAGE)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert heavy & set(json.loads(done.stdout)) == {engine}
