"""Bundles of one encoder by itself: what it embeds, what it refuses, and its bench and self-test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pocketvl_runtime.bench import bench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.cli import cli
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.model import load
from pocketvl_runtime.selftest import selftest
from tests.runtime import graphs
from tests.runtime.bundles import (
    IMAGE_PORT,
    PREPROCESS,
    SPACE,
    TEXT_PORT,
    TEXTS,
    edit_golden,
)
from tests.runtime.towers import VARIANTS, write_tower

IMAGE = "golden/images/wide.jpg"


@pytest.fixture(scope="module")
def image_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("image") / "tiny")


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("text") / "tiny", TEXT_PORT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_tower_embeds_pictures(image_tower: Path, variant: str) -> None:
    loaded = load(image_tower, variant)
    pixels = load_pixels(image_tower / IMAGE, PREPROCESS)
    expected = graphs.image_embedding(pixels)
    np.testing.assert_allclose(loaded.embed_image(image_tower / IMAGE), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.embed_pixels(pixels), expected, atol=1e-5)
    assert loaded.space == SPACE
    assert loaded.image_processor == PREPROCESS
    assert loaded.components == {"image_encoder"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_tower_embeds_texts(text_tower: Path, variant: str) -> None:
    loaded = load(text_tower, variant)
    ids = loaded.tokenizer.encode(TEXTS).ids
    expected = np.stack([graphs.text_embedding(row) for row in ids])
    np.testing.assert_allclose(loaded.embed_text(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.embed_ids(ids[0]), expected[0], atol=1e-5)
    assert loaded.embed_text([]).shape == (0, graphs.DIM)
    assert loaded.space == SPACE


def test_what_one_encoder_cannot_do_is_one_line_that_says_what_it_can(
    image_tower: Path, text_tower: Path
) -> None:
    seeing, reading = load(image_tower), load(text_tower)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: seeing.match(image_tower / IMAGE, ["a"]), "tiny-image has no task 'match'; it has embed"),
        (lambda: seeing.classify(image_tower / IMAGE), "tiny-image has no task 'classify'; it has embed"),
        (lambda: seeing.ask(image_tower / IMAGE, "a?"), "tiny-image has no task 'ask'; it has embed"),
        (lambda: seeing.embed_text(["a"]), "tiny-image embeds pictures, and no texts"),
        (lambda: seeing.tokenizer, "tiny-image reads no texts"),
        (lambda: reading.embed_image(image_tower / IMAGE), "tiny-text embeds texts, and no pictures"),
        (lambda: reading.image_processor, "tiny-text sees no pictures"),
        (lambda: reading.match(image_tower / IMAGE, ["a"]), "tiny-text has no task 'match'; it has embed"),
    ]
    for ask, message in refused:
        with pytest.raises(BundleError) as caught:
            ask()
        assert str(caught.value) == message


@pytest.mark.parametrize("tower", ["image_tower", "text_tower"])
def test_it_passes_its_self_test_and_a_wrong_embedding_fails_it(
    tower: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert selftest(Bundle.open(request.getfixturevalue(tower)), VARIANTS).failures == ()
    port = IMAGE_PORT if tower == "image_tower" else TEXT_PORT
    wrong = write_tower(tmp_path / "wrong", port)

    def negate(golden: Any) -> None:
        row = golden["outputs"][port][0]
        row["values"] = [-value for value in row["values"]]

    edit_golden(wrong, negate)
    report = selftest(Bundle.open(wrong), ("onnx-fp32",))
    assert len(report.failures) == 1
    assert "cosine -1.00000" in report.failures[0]


@pytest.mark.parametrize(
    ("tower", "stages"),
    [
        ("image_tower", {"decode", "preprocess", "image", "total"}),
        ("text_tower", {"tokens", "text", "total"}),
    ],
)
def test_a_bench_times_what_it_embeds(tower: str, stages: set[str], request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(tower))
    result = bench(bundle, VARIANTS, (1,), 3)
    for name in VARIANTS:
        (timing,) = result.variants[name].timings
        assert set(timing.stages) == stages
        assert all(each.n == 3 and each.median > 0 for each in timing.stages.values())


def test_a_bench_refuses_an_input_that_nothing_reads(image_tower: Path, text_tower: Path) -> None:
    with pytest.raises(InputError, match="tiny-image embeds pictures alone"):
        bench(Bundle.open(image_tower), VARIANTS, (1,), 1, text="a cube")
    with pytest.raises(InputError, match="tiny-text embeds texts alone"):
        bench(Bundle.open(text_tower), VARIANTS, (1,), 1, image=image_tower / IMAGE)


def test_the_command_line_embeds_and_tells(image_tower: Path, text_tower: Path) -> None:
    image = str(image_tower / IMAGE)
    run = CliRunner().invoke(cli, ["embed", str(image_tower), "--image", image, "--image", image, "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert [len(row["embedding"]) for row in found["results"]] == [graphs.DIM] * 2
    assert found["space"] == SPACE
    told = CliRunner().invoke(cli, ["info", str(text_tower)])
    assert told.stdout.splitlines()[0] == "tiny-text (clip): embed"
    checked = CliRunner().invoke(cli, ["selftest", str(text_tower)])
    assert checked.exit_code == 0
    assert "0 pictures, 3 texts" in checked.stdout
