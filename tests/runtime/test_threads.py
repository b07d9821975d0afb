"""A model that several threads ask at once gives each of them its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import load
from pocketvl_runtime.manifest import Engine, TensorSpec
from tests.runtime import graphs
from tests.runtime.bundles import picture
from tests.runtime.test_backends import IMAGE, WRITERS, opened, spec

THREADS, ROUNDS = 4, 300


def all_at_once(ask: Callable[[int], None]) -> None:
    """Has every thread ask `ROUNDS` times for its own thing; raises what any of them raises."""
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        start.wait()
        for _ in range(ROUNDS):
            ask(number)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))


@pytest.mark.parametrize("engine", Engine)
def test_a_graph_answers_each_thread_what_it_asked(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / f"g.{engine.value}"
    WRITERS[engine, "pixels"](path)
    backend = opened(spec(engine), path, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (THREADS, *IMAGE.shape), dtype=np.uint8)
    expected = [graphs.image_embedding(value) for value in pixels]
    kept: list[tuple[int, Any]] = []

    def ask(number: int) -> None:
        got = backend.run({"pixels": pixels[number]})["embedding"][0]
        np.testing.assert_allclose(got, expected[number], atol=2e-6)
        kept.append((number, got))

    all_at_once(ask)
    for number, got in kept:  # later answers have not overwritten it
        np.testing.assert_allclose(got, expected[number], atol=2e-6)


def test_inputs_of_two_threads_are_not_mixed(tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", ("ids", "mask"))
    ids, mask = (TensorSpec(name, "int32", (1, 4)) for name in ("ids", "mask"))
    out = TensorSpec("embedding", "int32", (1, 4))
    backend = opened(spec(Engine.TFLITE, (ids, mask), (out,)), tmp_path / "g.tflite", 1)

    def ask(number: int) -> None:
        value = np.full((1, 4), 1000 * number, np.int32)
        assert backend.run({"ids": value + 7, "mask": value})["embedding"].tolist() == [[7] * 4]

    all_at_once(ask)


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8", "tflite-fp32"])
def test_a_model_answers_each_thread_what_it_asked(variant: str, whole_bundle: Path) -> None:
    model = load(whole_bundle, variant, 1)
    images = [picture((20 + number, 31), seed=number) for number in range(THREADS)]
    texts = ["red cube", "a photo of the blue ball", "green", "the red ball"]
    expected = [
        (model.embed_image(image), model.embed_text([text]))
        for image, text in zip(images, texts, strict=True)
    ]

    def ask(number: int) -> None:
        seen, read = expected[number]
        np.testing.assert_allclose(model.embed_image(images[number]), seen, atol=2e-6)
        np.testing.assert_allclose(model.embed_text([texts[number]]), read, atol=2e-6)

    all_at_once(ask)
