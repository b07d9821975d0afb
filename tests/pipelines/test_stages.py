"""Stages of export and search: components keep all their biases, layers are chosen, data is split."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pocketvl.families
from pocketvl.data.dataset import SAMPLES_FILE, Dataset, write_samples
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.base import Component, Contract, example_inputs
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import INT8_DYNAMIC, INT8_TABLE
from pocketvl.pipelines.stages.calibrating import CalibrateComponent, NoteCalibration, read_notes
from pocketvl.pipelines.stages.components import (
    CalibrationFeeds,
    Feeds,
    PrepareComponent,
    ids_of,
    open_component,
    save_component,
)
from pocketvl.pipelines.stages.measuring import RunReference
from pocketvl.pipelines.stages.quantizing import ChooseLayers, QuantizeComponent
from pocketvl.pipelines.stages.splitting import CHOOSING, JUDGING, SplitDataset
from pocketvl.quantize.fold import fold_
from pocketvl.stage import Inputs, PlanError, Result, plan, run
from pocketvl.tasks.contrastive import calibration_texts
from pocketvl_runtime.manifest import Precision
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("source") / "tiny")


def take_biases_(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and name.endswith(("q_proj", "fc1")):
            child.register_parameter("bias", None)


def feed_of(component: Component) -> torch.Tensor:
    """Three inputs of a component."""
    (example,), rng = example_inputs(component), np.random.default_rng(0)
    values = rng.integers(0, 256, (3, *example.shape[1:]))
    return torch.from_numpy(values).to(example.dtype)


@pytest.mark.parametrize("name", ["image_encoder", "text_encoder"])
@pytest.mark.parametrize("make", [make_tiny_clip, make_tiny_dual])
def test_a_prepared_component_computes_what_the_checkpoint_does(
    name: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    checkpoint = make(tmp_path / "tiny")
    stage = PrepareComponent(checkpoint, name)
    component = open_component(checkpoint, name, run(plan([stage]), tmp_path / "cache")[stage].folder)
    plain = open_checkpoint(checkpoint).component(name)
    assert (component.inputs, component.outputs) == (plain.inputs, plain.outputs)
    feed = feed_of(component)
    with torch.inference_mode():
        torch.testing.assert_close(component.module(feed), plain.module(feed), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in component.module.parameters())
    assert not component.module.training


@pytest.mark.parametrize("name", ["image_encoder", "text_encoder"])
def test_biases_that_folding_made_come_back(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_biases(contract: Contract, name: str) -> Component:
        component = plain(contract, name)
        take_biases_(component.module)
        return component

    plain = pocketvl.families.uninitialised_component
    monkeypatch.setattr("pocketvl.families.uninitialised_component", without_biases)
    component = open_checkpoint(checkpoint).component(name)
    module = component.module.requires_grad_(False)
    take_biases_(module)
    feed = feed_of(component)
    fold_(module, (feed[:1],))
    made = [name for name, _ in module.named_parameters() if name.endswith(("q_proj.bias", "fc1.bias"))]
    assert made
    save_component(module, tmp_path)
    again = open_component(checkpoint, name, tmp_path).module
    assert set(made) <= {name for name, _ in again.named_parameters()}
    with torch.inference_mode():
        assert torch.equal(again(feed), module(feed))


def layer(value: int, *, table: bool = False) -> QuantizedLayer:
    weights = np.full((3, 4), value, np.int8)
    bias = None if table else np.full(3, value, np.float32)
    return QuantizedLayer(INT8_TABLE if table else INT8_DYNAMIC, weights, np.ones(3, np.float32), bias)


@dataclass(frozen=True)
class Components:
    """Three quantized components on disk, known by their weights, and the stage that chooses among them."""

    folders: tuple[Path, ...]
    stages: tuple[QuantizeComponent, ...]

    def choose(self, out: Path, *changes: tuple[str, int]) -> dict[str, int]:
        """By layer, the component that it came from."""
        out.mkdir()
        stage = ChooseLayers(self.stages, changes)
        stage.run(Inputs({"quantized": self.folders}), out)
        layers = QuantizedComponent.load(out).layers
        return {name: int(each.weights[0, 0]) for name, each in layers.items()}


@pytest.fixture
def components(tmp_path: Path) -> Components:
    names, folders = ("a", "b", "c"), []
    for number in range(3):
        folder = tmp_path / f"component{number}"
        folder.mkdir()
        layers = {name: layer(number) for name in names} | {"table": layer(number, table=True)}
        QuantizedComponent(layers).save(folder)
        folders.append(folder)
    prepared = PrepareComponent(tmp_path, "text_encoder")
    calibration = CalibrateComponent(prepared, CalibrationFeeds(tmp_path, tmp_path))
    precisions = (Precision.INT8, Precision.INT4, Precision.INT8DYN)
    return Components(
        tuple(folders), tuple(QuantizeComponent(prepared, calibration, each) for each in precisions)
    )


def test_layers_come_from_where_they_are_taken_or_stay_in_float(
    components: Components, tmp_path: Path
) -> None:
    found = components.choose(tmp_path / "out", ("c", 2), ("a", -1), ("table", 1))
    assert found == {"b": 0, "c": 2, "table": 1}


def test_without_changes_it_is_the_first_component(components: Components, tmp_path: Path) -> None:
    assert components.choose(tmp_path / "out") == {"a": 0, "b": 0, "c": 0, "table": 0}
    kept = QuantizedComponent.load(components.folders[0])
    again = QuantizedComponent.load(tmp_path / "out")
    assert again.spec == kept.spec
    np.testing.assert_array_equal(again.layers["a"].weights, kept.layers["a"].weights)


def test_a_layer_that_is_not_there_is_named(components: Components, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="text_encoder has no quantized layer 'zzz'"):
        components.choose(tmp_path / "out", ("a", 1), ("zzz", -1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(21):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / "images" / f"{index}.png")
        caption = f"caption {index}\u2028after a separator"
        rows.append({"image": f"images/{index}.png", "captions": [caption], "label": "dog", "mine": index})
    write_samples(folder, rows)
    return folder


def split(data: Path, cache: Path, most: int) -> tuple[Result, Dataset, Dataset]:
    stage = SplitDataset(data, most)
    result = run(plan([stage]), cache)[stage]
    return result, Dataset.open(result.folder / CHOOSING), Dataset.open(result.folder / JUDGING)


@pytest.mark.parametrize(("most", "choosing"), [(1000, 10), (10, 10), (3, 3)])
def test_data_is_cut_in_two_and_nothing_is_in_both(
    most: int, choosing: int, data: Path, tmp_path: Path
) -> None:
    whole = Dataset.open(data)
    _, chosen_by, judged_by = split(data, tmp_path / "cache", most)
    assert (len(chosen_by), len(judged_by)) == (choosing, 21 - choosing)
    halves = (*chosen_by.samples, *judged_by.samples)
    assert [each.captions for each in halves] == [each.captions for each in whole.samples]
    pairs = zip(halves, whole.samples, strict=True)
    assert all(half.image.read_bytes() == sample.image.read_bytes() for half, sample in pairs)


def test_what_else_a_sample_holds_is_kept(data: Path, tmp_path: Path) -> None:
    result, _, _ = split(data, tmp_path / "cache", 5)
    lines = (result.folder / JUDGING / SAMPLES_FILE).read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["mine"] for line in lines if line] == list(range(5, 21))


def test_a_split_is_the_same_every_time(data: Path, tmp_path: Path) -> None:
    digests = {split(data, tmp_path / cache, 5)[0].digest for cache in ("a", "b")}
    assert len(digests) == 1


def test_a_folder_of_links_is_cut_in_two(data: Path, tmp_path: Path) -> None:
    """Its list on Windows written, its pictures links out of it."""
    store, links = tmp_path / "store", data / "images"
    links.rename(store)
    links.mkdir()
    for path in store.iterdir():
        (links / path.name).symlink_to(path)
    listing = (data / SAMPLES_FILE).read_bytes()
    (data / SAMPLES_FILE).write_bytes(codecs.BOM_UTF8 + listing.replace(b"\n", b"\r\n"))
    result, chosen_by, judged_by = split(data, tmp_path / "cache", 5)
    assert (len(chosen_by), len(judged_by)) == (5, 16)
    assert not any(path.is_symlink() for path in result.folder.rglob("*"))
    (data / SAMPLES_FILE).write_bytes(listing)
    assert result.digest == split(data, tmp_path / "other", 5)[0].digest


def test_too_few_samples_are_refused_before_anything_runs(data: Path) -> None:
    lines = (data / SAMPLES_FILE).read_text(encoding="utf-8").split("\n")
    (data / SAMPLES_FILE).write_text("\n".join(lines[:7]) + "\n", encoding="utf-8")
    with pytest.raises(PlanError, match="7 samples are too few"):
        plan([SplitDataset(data, 1000)])


@pytest.mark.parametrize(
    "written", ["images/../images/{name}", "{root}/images/{name}", "../data/images/{name}"]
)
def test_pictures_are_copied_however_their_path_is_written(written: str, data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / SAMPLES_FILE).read_text("utf-8").split("\n") if line]
    for row in rows:
        row["image"] = written.format(root=data.resolve(), name=Path(row["image"]).name)
    write_samples(data, rows)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    result, chosen_by, judged_by = split(data, tmp_path / "cache", 5)
    assert [sample.image.name for sample in (*chosen_by.samples, *judged_by.samples)] == [
        f"{index}.png" for index in range(21)
    ]
    assert sorted(path.name for path in result.folder.iterdir()) == [CHOOSING, JUDGING]
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def labelled(folder: Path, *rows: dict[str, object]) -> Dataset:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (40, 40), (9, 8, 7)).save(folder / "a.png")
    write_samples(folder, [{"image": "a.png", **row} for row in rows])
    return Dataset.open(folder)


def test_labels_stand_for_the_captions_of_samples_that_have_none(tmp_path: Path) -> None:
    rows: tuple[dict[str, object], ...] = (
        {"label": "dog"},
        {"captions": ["b", "a"], "label": "cat"},
        {"negatives": ["c"]},
        {"label": "dog"},
        {},
    )
    assert calibration_texts(labelled(tmp_path, *rows)) == ("a photo of a dog", "b", "a", "c")


def test_a_component_is_calibrated_with_labels(checkpoint: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "data", {"label": "dog"}, {"label": "cat"}, {"label": "dog"})
    stage = CalibrationFeeds(checkpoint, data.root)
    result = run(plan([stage]), tmp_path / "cache")[stage].folder
    opened = open_checkpoint(checkpoint)
    texts = ["a photo of a dog", "a photo of a cat"]
    expected = ids_of(texts, opened.tokenizer_json, opened.tokenizer)
    found = np.concatenate(list(Feeds(result, "text_encoder")))
    np.testing.assert_array_equal(found, expected)
    assert len(Feeds(result, "image_encoder", batch=2)) == 2
    assert [len(rows) for rows in Feeds(result, "image_encoder", batch=2)] == [2, 1]


def test_calibration_shows_a_text_no_more_tokens_than_are_read(checkpoint: Path, tmp_path: Path) -> None:
    labels = ("dog", "cat", "a dog", "a red dog")
    rows: list[dict[str, object]] = [{"label": label} for label in labels]
    data = labelled(tmp_path / "data", *rows)
    stage = CalibrationFeeds(checkpoint, data.root)
    result = run(plan([stage]), tmp_path / "cache")[stage].folder
    opened = open_checkpoint(checkpoint)
    (whole,) = map(np.asarray, Feeds(result, "text_encoder", batch=4))
    seen = Feeds(result, "text_encoder", batch=4, reader=opened.component("text_encoder"))
    lengths = [1 + int(row.argmax()) for row in whole]  # up to the highest id, which ends a text
    assert max(lengths) < whole.shape[1]
    assert len(seen) == len(set(lengths))
    shown = [row.tolist() for rows in seen for row in rows]
    assert sorted(shown) == sorted(row[:length].tolist() for row, length in zip(whole, lengths, strict=True))
    (images,) = Feeds(result, "image_encoder", 4, reader=opened.component("image_encoder"))
    assert len(images) == len(labels)


@pytest.mark.parametrize(("texts", "told"), [(("a", "b"), True), (("a photo of the red dog", "b"), False)])
def test_texts_that_are_mostly_padding_are_told(
    texts: tuple[str, ...], told: bool, checkpoint: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [{"captions": [text]} for text in texts]
    data = labelled(tmp_path / "data", *rows)
    feeds = CalibrationFeeds(checkpoint, data.root)
    for name in ("image_encoder", "text_encoder"):
        note = NoteCalibration(CalibrateComponent(PrepareComponent(checkpoint, name), feeds))
        notes = read_notes(run(plan([note]), tmp_path / "cache")[note].folder)
        found = [line for line in notes if "shorten-texts" in line]
        assert bool(found) == (told and name == "text_encoder")
        assert all("has more than 3 tokens, and the text_encoder computes 16" in line for line in found)


def test_photos_alone_are_refused_before_anything_runs(checkpoint: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "data", {}, {})
    with pytest.raises(PlanError, match="give the samples `captions` or a `label`"):
        plan([CalibrationFeeds(checkpoint, data.root)])
    with pytest.raises(PlanError, match="give the samples `captions`, or `label`s"):
        plan([RunReference(checkpoint, data.root)])
