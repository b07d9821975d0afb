"""Stages for a component that reads an image and a question: what it is calibrated with, and its graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, questions_of, write_samples
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.layers.segments import Blocks
from pocketvl.lower.backends import backend_of
from pocketvl.network.integers import QuantizedComponent
from pocketvl.pipelines.stages.calibrating import CalibrateComponent
from pocketvl.pipelines.stages.components import (
    CalibrationFeeds,
    Feeds,
    PrepareComponent,
    open_component,
    segments_of,
)
from pocketvl.pipelines.stages.lowering import GraphStage, LowerGraph, LowerQuantized
from pocketvl.pipelines.stages.quantizing import QuantizeComponent
from pocketvl.pipelines.variants import Fallbacks, VariantStages
from pocketvl.quantize.simulate import simulated
from pocketvl.recipes.export_recipe import ExportRecipe
from pocketvl.stage import PlanError, plan, run
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks.parity import measure_parity
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Engine, Precision
from pocketvl_runtime.text import Tokenizer
from tests.families.test_conformance import RUN
from tests.families.vilt_folder import make_vilt_folder


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt_folder(tmp_path_factory.mktemp("source") / "vilt")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("questions")
    write_tabletop(root, seed=3, count=10, size=32)
    return Dataset.open(root)


def rows_of(folder: Path) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Pixels and ids of all rows."""
    pixels, ids = zip(*Feeds(folder, "fusion"), strict=True)
    return np.concatenate(pixels), np.concatenate(ids)


@pytest.mark.parametrize("most", [1024, 7])
def test_each_question_is_shown_with_its_own_image(
    most: int, vilt: Path, data: Dataset, tmp_path: Path
) -> None:
    contract, asked = read_contract(vilt), questions_of(data)
    assert len(asked) > 2 * len(data)
    stage = CalibrationFeeds(vilt, data.root, most)
    pixels, ids = rows_of(run(plan([stage]), tmp_path / "cache")[stage].folder)
    count = min(most, len(asked))
    assert len(pixels) == len(ids) == count
    chosen = [asked[round(k * (len(asked) - 1) / (count - 1))] for k in range(count)]
    texts = Tokenizer(contract.tokenizer_json, contract.tokenizer).encode([each.text for each in chosen])
    np.testing.assert_array_equal(ids, texts.ids)
    images = [load_pixels(data.samples[each.sample].image, contract.preprocess) for each in chosen]
    np.testing.assert_array_equal(pixels, images)


def test_a_dataset_without_questions_is_refused_before_anything_runs(
    vilt: Path, data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(data.samples[0].image.read_bytes())
    write_samples(tmp_path, [{"image": "a.png", "captions": ["a cube"]}])
    with pytest.raises(PlanError, match="no sample has questions and answers"):
        plan([CalibrationFeeds(vilt, tmp_path)])


@pytest.mark.parametrize("engine", Engine)
def test_stages_lower_it_in_float_and_in_integers(
    engine: Engine, vilt: Path, data: Dataset, tmp_path: Path
) -> None:
    feeds, prepared = CalibrationFeeds(vilt, data.root, 32), PrepareComponent(vilt, "fusion")
    calibration = CalibrateComponent(prepared, feeds)
    integers = QuantizeComponent(prepared, calibration, Precision.INT8)
    plain = LowerGraph(prepared, engine)
    quantized = LowerQuantized(plain, integers, Precision.INT8)
    results = run(plan([quantized]), tmp_path / "cache")
    component = open_component(vilt, "fusion", results[prepared].folder)
    rows = rows_of(results[feeds].folder)
    inputs = [torch.from_numpy(each) for each in rows]

    def found(stage: GraphStage) -> NDArray[np.float32]:
        path = results[stage].folder / stage.file
        backend_of(engine).check(path)
        names = [port.name for port in component.inputs]
        samples = (dict(zip(names, row, strict=True)) for row in Feeds(results[feeds].folder, "fusion"))
        return RUN[engine](path, samples, "logits")

    with torch.inference_mode():
        reference = open_checkpoint(vilt).component("fusion").module(*inputs).numpy()
        with simulated(component.module, QuantizedComponent.load(results[integers].folder)):
            expected = component.module(*inputs).numpy()
    np.testing.assert_allclose(found(plain), reference, atol=1e-4)
    assert measure_parity(expected, found(quantized)).centred_cosine_median > 0.995


def test_a_recipe_quantizes_the_cross_modal_blocks_of_attention(
    vilt: Path, data: Dataset, tmp_path: Path
) -> None:
    recipe = ExportRecipe(equalize=False, products=Blocks.CROSS)
    stages = VariantStages(vilt, data.root, recipe, is_quantized=True)
    graph = stages.graph("fusion", Engine.ONNX, Precision.INT8, Fallbacks())
    integers, prepared, feeds = (
        stages.integers("fusion", Precision.INT8),
        stages.prepared("fusion"),
        stages.feeds,
    )
    results = run(plan([graph]), tmp_path / "cache")
    component = open_component(vilt, "fusion", results[prepared].folder)
    quantized = QuantizedComponent.load(results[integers].folder)
    assert {name.rpartition(".")[2] for name in quantized.products} == {"text_image", "image_text"}
    with torch.inference_mode(), simulated(component.module, quantized, segments_of(component)):
        rows = [torch.from_numpy(each) for each in rows_of(results[feeds].folder)]
        expected = component.module(*rows).numpy()
    names = [port.name for port in component.inputs]
    samples = (dict(zip(names, row, strict=True)) for row in Feeds(results[feeds].folder, "fusion"))
    found = RUN[Engine.ONNX](results[graph].folder / graph.file, samples, "logits")
    assert measure_parity(expected, found).centred_cosine_median > 0.995
