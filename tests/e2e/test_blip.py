"""A BLIP of two heads as bundles that match and rerank like transformers, and what knows one head alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import BlipForImageTextRetrieval

from pocketvl import api
from pocketvl.data.dataset import Dataset
from pocketvl.errors import RecipeError
from pocketvl.evaluate.report_json import read_report
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.bundle import is_bundle_of, write_base
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import MatchTask
from pocketvl_runtime.selftest import selftest
from pocketvl_runtime.text import Tokenizer
from tests.families.cases import normalized
from tests.families.tiny_blip import make_tiny_blip

DOCS = Path(__file__).parents[2] / "docs" / "manifests"
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
TEXTS = ("a photo of a cat", "two dogs", "a", "a large striped green triangle above a star", "the red ring")
TRAINED = """
[qat]
precision = "int8"
training = { phases = [{ steps = 2 }], batch_size = 8 }
"""
PRUNED = """
[[steps]]
kind = "prune"
ratio = 0.5
components = ["text_encoder"]
"""
DROPPED = """
[[steps]]
kind = "drop-reranker"
"""
TRIMMED = """
[[steps]]
kind = "trim-vocabulary"
"""
LEARNED = """
[[steps]]
kind = "learn"
learn = { phases = [{ steps = 2 }], batch_size = 8 }
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    make_tiny_blip(folder / "tiny")
    for name, seed in {"data": 21, "judged": 22}.items():
        (folder / name).mkdir()
        write_tabletop(folder / name, seed, 12, size=40)
    return folder


@pytest.fixture(scope="module")
def bundle(root: Path) -> Path:
    result = api.export(
        root / "tiny",
        root / "bundle",
        calibration=root / "data",
        data=root / "judged",
        variants=VARIANTS,
        cache=root / "cache",
        gate={"match_hard": 100.0, "itm_hard": 100.0},
    )
    assert result.failures == ()
    assert result.bundle is not None
    return result.bundle


def by_transformers(root: Path, picture: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and probabilities to fit, [N] each, of a picture with `TEXTS`."""
    source = open_checkpoint(root / "tiny")
    model = BlipForImageTextRetrieval.from_pretrained(root / "tiny").train(False)
    ids = torch.from_numpy(Tokenizer(source.tokenizer_json, source.tokenizer).encode(TEXTS).ids).long()
    pixels = normalized(source.contract, load_pixels(picture, source.preprocess)[None])
    shown = {
        "input_ids": ids,
        "attention_mask": (ids != source.tokenizer.pad_id).long(),
        "pixel_values": pixels.expand(len(TEXTS), -1, -1, -1),
    }
    with torch.no_grad():
        cosines = model(**shown, use_itm_head=False).itm_score[0]
        fits = model(**shown).itm_score.softmax(-1)[:, 1]
    return cosines.numpy(), fits.numpy()


@pytest.mark.slow
def test_every_variant_answers_both_heads_as_transformers_does(root: Path, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert tuple(opened.manifest.variants) == VARIANTS
    assert isinstance(opened.manifest.tasks["rerank"], MatchTask)
    report = selftest(opened, VARIANTS)
    assert (report.failures, report.notes, report.answers) == ((), (), 6 + 6 + 12)
    seen = []
    for picture in sorted((root / "judged" / "images").iterdir())[:4]:
        cosines, fits = by_transformers(root, picture)
        seen += fits.tolist()
        assert np.ptp(fits) > 2e-3
        for variant in VARIANTS:
            loaded, allowed = load(bundle, variant, threads=1), 1e-4 if variant.endswith("fp32") else 0.1
            matched = {each.text: each.similarity for each in loaded.match(picture, TEXTS).results}
            np.testing.assert_allclose([matched[text] for text in TEXTS], cosines, atol=allowed)
            reranked = {each.text: each.probability for each in loaded.rerank(picture, TEXTS).results}
            np.testing.assert_allclose([reranked[text] for text in TEXTS], fits, atol=allowed)
            best = loaded.rerank(picture, TEXTS, top=2).results
            nearest = sorted(TEXTS, key=matched.__getitem__)[-2:]
            assert {each.text for each in best} == set(nearest)
    assert np.ptp(seen) > 0.05


@pytest.mark.slow
def test_the_manifest_in_docs_says_of_graphs_and_tasks_what_an_export_says(bundle: Path) -> None:
    shown, own = (json.loads(path.read_text()) for path in (DOCS / "blip.json", bundle / "manifest.json"))
    for manifest in (shown, own):
        manifest["tasks"]["classify"].pop("labels")  # of other data
        for graph in manifest["graphs"].values():
            for port in graph["outputs"]:
                assert ("space" in port) == (port["kind"] == "embedding")
                port.pop("space", None)
    assert {key: shown[key] for key in ("graphs", "tasks", "processors")} == {
        key: own[key] for key in ("graphs", "tasks", "processors")
    }


@pytest.mark.slow
def test_the_report_judges_both_heads_and_graphs_are_quantized(root: Path, bundle: Path) -> None:
    report = read_report(bundle / "report.json")
    assert Metric.ITM_HARD in report.reference
    for variant in report.variants.values():
        assert variant.metrics[Metric.ITM_HARD].n == 12
        assert set(variant.parity) == {
            "image_encoder.embedding",
            "text_encoder.embedding",
            "fusion.logits",
        }
        assert "fusion" in variant.latency_ms
        comparable = variant.comparable[0].centred_cosine_median
        assert set(comparable) == {"image_encoder", "text_encoder"}
    stored = {
        each.name: each.data_type
        for each in onnx.load(bundle / "graphs" / "fusion.int8.onnx").graph.initializer
    }
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        weights = f"text_encoder.encoder.layer.1.crossattention.{name}.weight_quantized"
        assert stored[weights] == onnx.TensorProto.INT8
    assert "itm_hard" in (bundle / "report.html").read_text(encoding="utf-8")
    again = api.verify(bundle, root / "tiny", root / "judged")
    assert again.reference[Metric.ITM_HARD].value == report.reference[Metric.ITM_HARD].value


def test_what_knows_one_head_refuses_two_in_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "trained.toml").write_text(TRAINED)
    with pytest.raises(RecipeError, match=r"a recipe that trains knows one head, .*fusion") as caught:
        api.export(
            root / "tiny",
            tmp_path / "out",
            recipe=str(tmp_path / "trained.toml"),
            train=root / "data",
            variants=("onnx-int8",),
            calibration=root / "data",
            cache=tmp_path / "cache",
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match=r"search knows one head, .*step drop-reranker") as caught:
        api.search(
            root / "tiny",
            tmp_path / "out",
            budget="size=1MB",
            data=root / "data",
            calibration=root / "data",
            cache=tmp_path / "cache",
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [PRUNED, LEARNED, PRUNED + DROPPED])
def test_compression_refuses_a_second_head_in_one_line(root: Path, tmp_path: Path, steps: str) -> None:
    (tmp_path / "recipe.toml").write_text(steps)
    with pytest.raises(RecipeError, match=r"has a second head \(fusion\), .*drop-reranker") as caught:
        api.compress(
            root / "tiny",
            tmp_path / "smaller",
            recipe=str(tmp_path / "recipe.toml"),
            data=root / "data",
            cache=tmp_path / "cache",
        )
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_first_head_alone_is_compressed_and_a_trimmed_model_keeps_both(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "first.toml").write_text(
        DROPPED + PRUNED.replace('components = ["text_encoder"]\n', "") + LEARNED
    )
    (tmp_path / "trimmed.toml").write_text(TRIMMED)
    for name in ("first", "trimmed"):
        api.compress(
            root / "tiny",
            tmp_path / name,
            recipe=str(tmp_path / f"{name}.toml"),
            data=root / "data",
            cache=tmp_path / "cache",
        )
    first, trimmed = (open_checkpoint(tmp_path / name) for name in ("first", "trimmed"))
    assert set(first.components) == {"image_encoder", "text_encoder"}
    assert trimmed.contract.reranker == open_checkpoint(root / "tiny").contract.reranker
    assert json.loads((tmp_path / "first" / "compression.json").read_text())["dropped"] == ["fusion"]
    api.export(
        tmp_path / "first",
        tmp_path / "bundle",
        calibration=root / "data",
        variants=("onnx-fp32",),
        cache=tmp_path / "cache",
    )
    tasks = Bundle.open(tmp_path / "bundle").manifest.tasks
    assert set(tasks) == {"match", "classify"}


def test_a_bundle_without_the_second_head_is_not_of_a_checkpoint_with_it(root: Path, tmp_path: Path) -> None:
    both, first = (open_checkpoint(root / "tiny") for _ in range(2))
    first.drop_reranker_()
    assert first.space() == both.space()
    write_base(first, Dataset.open(root / "data"), tmp_path)
    assert is_bundle_of(Bundle.open(tmp_path), first)
    assert not is_bundle_of(Bundle.open(tmp_path), both)


def test_inspect_tells_both_heads(root: Path) -> None:
    found = api.inspect(root / "tiny")
    assert found.reranker is not None
    assert found.reranker.component == "fusion"
    assert list(found.components) == ["image_encoder", "text_encoder", "fusion"]
    methods = found.components["text_encoder"].methods
    assert methods["trim-vocabulary"] is None
    assert "second head (fusion)" in str(methods["prune"])
    assert found.components["fusion"].methods["drop-reranker"] is None
