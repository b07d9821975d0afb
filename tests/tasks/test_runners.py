"""Outputs by torch and by a bundle, of graphs so small that they are worked out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.tasks.bundle_runner import BundleRunner
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import make_tiny_clip
from tests.runtime import bundles, graphs
from tests.tasks.tiny import IMAGE, TEXT, runner, task

CAPTIONS = ("a photo of a red cube", "the blue ball", "green", "a red ball")


def write_scenes(root: Path, captions: tuple[str, ...]) -> Dataset:
    rows: list[dict[str, object]] = []
    for index in range(70):  # more than one batch
        bundles.picture((20 + index % 7, 31), seed=index).save(root / f"{index}.png")
        rows.append({"image": f"{index}.png"})
        if captions:
            rows[-1]["captions"] = [captions[index % len(captions)]]
    write_samples(root, rows)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_scenes(tmp_path_factory.mktemp("scenes"), CAPTIONS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def by_hand(scenes: Dataset) -> tuple[np.ndarray, np.ndarray]:
    ids = Tokenizer(bundles.tokenizer_json(), bundles.TOKENIZER).encode(task().texts(scenes)).ids
    images = [graphs.image_embedding(load_pixels(s.image, bundles.PREPROCESS)) for s in scenes.samples]
    return np.stack(images), np.stack([graphs.text_embedding(row) for row in ids])


def test_torch_gives_every_image_and_text_in_order(scenes: Dataset) -> None:
    calls: list[tuple[int, int, str]] = []
    got = task().outputs(runner(), scenes, lambda *call: calls.append(call))
    images, texts = by_hand(scenes)
    assert got.texts == CAPTIONS
    assert got[IMAGE].dtype == got[TEXT].dtype == np.float32
    assert np.abs(got[IMAGE] - images).max() < 1e-5
    assert np.abs(got[TEXT] - texts).max() < 1e-5
    assert calls == [(done, 74, "running torch fp32") for done in (64, 70, 74)]


def test_a_part_of_the_rows_is_spread_evenly(scenes: Dataset) -> None:
    whole, part = (task().outputs(runner(), scenes, most=most) for most in (None, 8))
    assert (whole.most, part.most, part.texts) == (None, 8, whole.texts)
    np.testing.assert_allclose(
        part[IMAGE], whole[IMAGE][np.linspace(0, 69, 8).round().astype(int)], atol=1e-6
    )
    np.testing.assert_allclose(part[TEXT], whole[TEXT], atol=1e-6)  # 4 of them


def test_texts_without_what_is_not_read_give_the_same(tmp_path: Path) -> None:
    opened = open_checkpoint(make_tiny_clip(tmp_path / "tiny"))
    components = opened.components
    runners = [
        TorchRunner(components, Encoder.of_contract(opened.contract), batch=4, padded=padded)
        for padded in (True, False)
    ]
    encoder = runners[0].encoder
    seen: list[int] = []
    components["text_encoder"].module.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    texts = ["a red dog", "a", "two cats", "blue", "a cat", "red dog"]
    feed = encoder.feed("text_encoder", texts=texts).read(0, len(texts))
    whole, cut = (each.run("text_encoder", feed)["embedding"] for each in runners)
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    assert len({row.tobytes() for row in whole.round(3)}) == len(texts)
    assert seen[0] == feed["ids"].shape[1]
    assert min(seen[1:]) < seen[0]


def test_the_mask_goes_to_a_component_that_reads_it(scenes: Dataset) -> None:
    got = task().outputs(runner(needs_mask=True), scenes)  # padded with a word that counts
    assert np.abs(got[TEXT] - by_hand(scenes)[1]).max() < 1e-5


@pytest.mark.parametrize("variant", ["onnx-fp32", "tflite-fp32"])
def test_a_variant_gives_the_same_through_the_runtime(scenes: Dataset, tiny: Path, variant: str) -> None:
    calls: list[tuple[int, int, str]] = []
    got = task().outputs(BundleRunner(tiny, variant), scenes, lambda *call: calls.append(call))
    images, texts = by_hand(scenes)
    assert np.abs(got[IMAGE] - images).max() < 1e-5
    assert np.abs(got[TEXT] - texts).max() < 1e-5
    assert calls == [(done, 74, f"running {variant}") for done in (50, 70, 74)]


def test_a_variant_that_gives_nan_is_measured_as_such(scenes: Dataset, tmp_path: Path) -> None:
    broken = bundles.write_bundle(tmp_path / "broken")
    graphs.onnx_image_graph(broken / "graphs" / "image_encoder.fp32.onnx", scale=float("inf"))
    bundles.reseal(broken)
    got = task().outputs(BundleRunner(broken, "onnx-fp32"), scenes)
    parity = task().parity(task().outputs(runner(), scenes), got)
    assert parity[IMAGE].non_finite == len(scenes)
    assert parity[TEXT].non_finite == 0
    assert np.isfinite(got[TEXT]).all()


def test_what_cannot_be_run_is_refused(scenes: Dataset, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        task().outputs(runner(), write_scenes(tmp_path, ()))
    broken = write_scenes(tmp_path, CAPTIONS)
    (tmp_path / "66.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"66\.png"):
        task().outputs(runner(), broken)
    with pytest.raises(BundleError, match="onnx-fp64"):
        BundleRunner(tiny, "onnx-fp64")
