"""Which variants there are, and what is said where an engine does not run the layers of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pocketvl.errors import RecipeError
from pocketvl.lower.backends import BACKENDS
from pocketvl.lower.forms import form_of
from pocketvl.network.precisions import PLANS, QUANTIZED, WeightGrids
from pocketvl.network.specification import Granularity, Scheme
from pocketvl.pipelines.search import SearchRequest
from pocketvl.pipelines.variants import Fallbacks, VariantStages, checked_variants, refused_layer
from pocketvl.recipes.export_recipe import ExportRecipe
from pocketvl_runtime.manifest import Engine, Precision
from tests.families.tiny_blip import make_tiny_blip


def test_engines_offer_the_precisions_whose_layers_they_run() -> None:
    assert checked_variants(["onnx-int2"]) == {"onnx-int2": (Engine.ONNX, Precision.INT2)}
    with pytest.raises(RecipeError, match=r"^variants: tflite-int2; there are .*onnx-int2, .*tflite-int4$"):
        checked_variants(["onnx-int2", "tflite-int2"])


@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_recipe_changes_the_grids_of_weights_and_nothing_else(precision: Precision) -> None:
    plan = PLANS[precision].layers
    assert plan is not None
    assert plan.with_weights(WeightGrids()) == plan
    changed = plan.with_weights(WeightGrids(64, zero_points=True, per_tensor=True))
    for name, spec in vars(plan).items():
        found = getattr(changed, name)
        assert replace(found, weights=spec.weights) == spec
        assert found.weights.bits == spec.weights.bits
        if spec.weights.granularity is Granularity.PER_GROUP:
            assert (found.weights.group_size, found.weights.scheme) == (64, Scheme.AFFINE)
        else:
            assert found.weights.granularity is Granularity.PER_TENSOR
        assert form_of(name, found) in BACKENDS[Engine.ONNX].forms


def test_a_component_that_reads_another_shares_the_blame_with_it(tmp_path: Path) -> None:
    stages = VariantStages(make_tiny_blip(tmp_path / "tiny"), tmp_path, ExportRecipe(), is_quantized=True)
    assert stages.with_read({"fusion"}) == {"fusion", "image_encoder"}
    assert stages.with_read({"image_encoder", "text_encoder"}) == {"image_encoder", "text_encoder"}
    assert stages.with_read(()) == frozenset()


def test_a_variant_with_zero_points_that_its_engine_lacks_is_refused_when_it_is_planned(
    tmp_path: Path,
) -> None:
    recipe = ExportRecipe(zero_points=True, equalize=False)
    stages = VariantStages(tmp_path, tmp_path, recipe, is_quantized=True)
    said = (
        r"^tflite-int4 would hold layers that are dynamic, weights of 4 bits per group of 32 with a zero "
        r"point, which LiteRT does not run: leave out the variant, or the recipe's zero_points$"
    )
    with pytest.raises(RecipeError, match=said):
        stages.graph("text_encoder", Engine.TFLITE, Precision.INT4, Fallbacks())
    for engine, precision in ((Engine.ONNX, Precision.INT4), (Engine.TFLITE, Precision.INT8)):
        stages.graph("text_encoder", engine, precision, Fallbacks())


def test_a_search_is_offered_the_widths_that_its_engine_ships(tmp_path: Path) -> None:
    folders = (tmp_path, tmp_path / "out", tmp_path / "work", tmp_path, tmp_path)
    assert SearchRequest(*folders, "size=1MB", Engine.ONNX, widths=(2, 4, 8)).widths == (2, 4, 8)
    said = (
        r"^widths: 2 bits would be dynamic, weights of 2 bits .*, which LiteRT does not run; leave them out"
    )
    with pytest.raises(RecipeError, match=said):
        SearchRequest(*folders, "size=1MB", Engine.TFLITE, widths=(2, 4, 8))
    shipped = {
        PLANS[precision].search_bits
        for precision in QUANTIZED
        if any(refused_layer(engine, precision) is None for engine in Engine)
    }
    assert shipped - {None} == {2, 4, 8}
