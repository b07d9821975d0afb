"""Embedding a dataset by torch and by a bundle, on graphs so small that they are worked out in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import DataError
from pocketvl.evaluate.latency import measure_latency, measure_latency_and_memory
from pocketvl.evaluate.parity import measure_parity
from pocketvl.evaluate.reference import embed_reference
from pocketvl.evaluate.tasks import distinct_texts
from pocketvl.evaluate.variant import embed_variant
from pocketvl.families.base import Architecture, Component, Contract
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.ports import contrastive_head, embedding_ports
from pocketvl_runtime.bench import STAGES
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.text import Tokenizer
from tests.runtime import bundles, graphs

CAPTIONS = ("a photo of a red cube", "the blue ball", "green", "a red ball")


class LinearPixels(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        value = pixels.flatten(1).float() @ torch.from_numpy(graphs.IMAGE_WEIGHTS)
        return nn.functional.normalize(value, dim=-1)


class SummedTokens(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = torch.from_numpy(graphs.TOKEN_TABLE)[ids.long()]
        return nn.functional.normalize(rows.sum(1), dim=-1)


class LinearTowers(Architecture):
    """An architecture whose components are worked out by hand."""

    def contract(self, folder: Path) -> Contract:
        raise NotImplementedError

    def parse(self, stored: dict[str, Any], folder: Path) -> PreTrainedConfig:
        raise NotImplementedError

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        raise NotImplementedError

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        modules = {"image_encoder": LinearPixels(), "text_encoder": SummedTokens()}
        ports = contract.components
        return tuple(
            Component(name, each, ports[name].inputs, ports[name].outputs) for name, each in modules.items()
        )


def source() -> Checkpoint:
    contract = Contract(
        family="clip",
        name="tiny",
        folder=Path("tiny"),
        processors={"image": bundles.PREPROCESS, "text": bundles.TOKENIZER},
        tokenizer_json=bundles.tokenizer_json(),
        components=embedding_ports(bundles.PREPROCESS, bundles.TOKENIZER, graphs.DIM),
        head=contrastive_head(),
    )
    return Checkpoint(LinearTowers(), contract, nn.Module(), {}, torch.float32)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("scenes")
    for index in range(70):  # more than one batch
        bundles.picture((20 + index % 7, 31), seed=index).save(root / f"{index}.png")
    write_samples(root, ({"image": f"{i}.png", "captions": [CAPTIONS[i % 4]]} for i in range(70)))
    return Dataset.open(root)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def by_hand(scenes: Dataset) -> tuple[np.ndarray, np.ndarray]:
    ids = Tokenizer(bundles.tokenizer_json(), bundles.TOKENIZER).encode(distinct_texts(scenes)).ids
    images = [graphs.image_embedding(load_pixels(s.image, bundles.PREPROCESS)) for s in scenes.samples]
    return np.stack(images), np.stack([graphs.text_embedding(row) for row in ids])


def test_the_reference_embeds_every_picture_and_text_in_order(scenes: Dataset) -> None:
    told: list[tuple[int, int, str]] = []
    got = embed_reference(source(), scenes, distinct_texts(scenes), lambda *news: told.append(news))
    images, texts = by_hand(scenes)
    assert got.texts == CAPTIONS
    assert got.image.dtype == got.text.dtype == np.float32
    assert np.abs(got.image - images).max() < 1e-5
    assert np.abs(got.text - texts).max() < 1e-5
    assert [done for done, _, _ in told] == [64, 70, 74]
    assert {total for _, total, _ in told} == {74}


@pytest.mark.parametrize("variant", ["onnx-fp32", "tflite-fp32"])
def test_a_variant_embeds_the_same_through_the_runtime(scenes: Dataset, tiny: Path, variant: str) -> None:
    told: list[tuple[int, int, str]] = []
    got = embed_variant(tiny, variant, scenes, CAPTIONS, lambda *news: told.append(news))
    images, texts = by_hand(scenes)
    assert np.abs(got.image - images).max() < 1e-5
    assert np.abs(got.text - texts).max() < 1e-5
    assert told[-1] == (74, 74, f"embedding with {variant}")


def test_a_variant_that_gives_nan_is_measured_as_such(scenes: Dataset, tmp_path: Path) -> None:
    broken = bundles.write_bundle(tmp_path / "broken")
    graphs.onnx_image_graph(broken / "graphs" / "image_encoder.fp32.onnx", scale=float("inf"))
    bundles.reseal(broken)
    got = embed_variant(broken, "onnx-fp32", scenes, CAPTIONS)
    parity = measure_parity(by_hand(scenes)[0], got.image)
    assert parity.non_finite == len(scenes)
    assert np.isfinite(got.text).all()
    assert measure_latency(broken, ["onnx-fp32"], [1], runs=1).variants.keys() == {"onnx-fp32"}


def test_what_cannot_be_embedded_is_refused(scenes: Dataset, tiny: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        embed_reference(source(), scenes, ())
    with pytest.raises(DataError, match="no texts"):
        embed_variant(tiny, "onnx-fp32", scenes, ())
    with pytest.raises(InputError):
        embed_reference(source(), scenes, ("",))
    with pytest.raises(BundleError, match="onnx-fp64"):
        embed_variant(tiny, "onnx-fp64", scenes, CAPTIONS)


def test_latency_is_measured_per_stage_and_thread_count(tiny: Path) -> None:
    result = measure_latency(tiny, ["onnx-fp32", "tflite-fp32"], [1, 2], runs=5)
    assert result.settings.runs == 5
    assert result.variants.keys() == {"onnx-fp32", "tflite-fp32"}
    for variant in result.variants.values():
        assert variant.peak_memory_bytes is None  # of a process that runs several
        assert [timing.threads for timing in variant.timings] == [1, 2]
        for timing in variant.timings:
            assert timing.stages.keys() == set(STAGES)
            assert timing.stages["total"].median >= timing.stages["image"].median > 0


def test_memory_is_of_one_process_a_variant(tiny: Path) -> None:
    told: list[tuple[int, int, str]] = []
    variants = ["onnx-fp32", "tflite-fp32"]
    result = measure_latency_and_memory(tiny, variants, [1, 2], 2, lambda *news: told.append(news))
    assert list(result.variants) == variants
    for variant in result.variants.values():
        assert variant.peak_memory_bytes is not None
        assert 10e6 < variant.peak_memory_bytes < 2e9
        assert [timing.threads for timing in variant.timings] == [1, 2]
    assert told == [(1, 2, "memory of onnx-fp32"), (2, 2, "memory of tflite-fp32")]


def test_a_bench_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"bench of onnx-fp32 failed: .*does not exist"):
        measure_latency(tmp_path / "none", ["onnx-fp32"], [1], runs=1)
