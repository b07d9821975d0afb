"""The tabletop world: deterministic, and its language true or false as it says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.tabletop import folder
from pocketvl.tabletop.draw import draw_scene
from pocketvl.tabletop.folder import make_sample, write_tabletop
from pocketvl.tabletop.language import (
    ANSWERS,
    NEGATIVES,
    Kind,
    Statement,
    canonical,
    captions,
    hard_negatives,
    holds,
    questions,
    sample_statement,
)
from pocketvl.tabletop.scene import (
    COLOURS,
    PATTERNS,
    SHAPES,
    SIZES,
    Look,
    Relation,
    Scene,
    Thing,
    clear_pairs,
    relation_between,
    sample_scene,
    scene_rng,
)

SCENES = [sample_scene(scene_rng(3, index)) for index in range(200)]


def thing(x: float, y: float, colour: str = "red", shape: str = "circle") -> Thing:
    return Thing(Look(shape, colour, "small", "solid"), x, y, 0.1, 0.0)


def test_the_vocabulary_is_as_large_as_promised() -> None:
    assert len(SHAPES) >= 7
    assert len(COLOURS) == 8
    assert len(SIZES) == len(PATTERNS) == 3


def test_scenes_hold_one_to_five_things_that_do_not_overlap() -> None:
    assert {len(scene.things) for scene in SCENES} == {1, 2, 3, 4, 5}
    for scene in SCENES:
        for k, a in enumerate(scene.things):
            for b in scene.things[:k]:
                assert (a.x - b.x) ** 2 + (a.y - b.y) ** 2 > (a.radius + b.radius) ** 2


def test_a_tilted_camera_leaves_every_scene_a_relation_to_speak_of() -> None:
    for index, scene in enumerate(SCENES):
        _, seen = draw_scene(scene, scene_rng(3, index, 1), 48)
        assert len(seen.things) == 1 or any(clear_pairs(seen))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.2, 0.5, Relation.LEFT),
        (0.8, 0.5, Relation.RIGHT),
        (0.5, 0.2, Relation.ABOVE),
        (0.5, 0.8, Relation.BELOW),
        (0.25, 0.25, None),
        (0.45, 0.5, None),
    ],
)
def test_relations_are_stated_only_where_they_are_clear(
    x: float, y: float, expected: Relation | None
) -> None:
    assert relation_between(thing(x, y), thing(0.5, 0.5)) is expected


def test_captions_are_true_and_negatives_false_and_one_change_away() -> None:
    for index, scene in enumerate(SCENES):
        rng = scene_rng(3, index, 2)
        statement = sample_statement(scene, rng)
        assert holds(statement, scene)
        assert captions(statement)[0] == canonical(statement)
        assert len(captions(statement)) >= 4
        false = hard_negatives(statement, scene, rng)
        assert len(false) == NEGATIVES
        assert len({canonical(s) for _, s in false} | {canonical(statement)}) == NEGATIVES + 1
        for kind, changed in false:
            assert not holds(changed, scene)
            words = zip(canonical(statement).split(), canonical(changed).split(), strict=True)
            changed_words = sum(a != b and {a, b} != {"a", "an"} for a, b in words)
            assert changed_words == (2 if kind is Kind.BINDING else 1)


def test_a_mirrored_scene_makes_left_of_false() -> None:
    scene = Scene((thing(0.2, 0.5, "red"), thing(0.8, 0.5, "blue")))
    said = Statement(scene.things[0].look, scene.things[1].look, Relation.LEFT)
    assert holds(said, scene)
    assert not holds(said, scene.mirrored())


def test_every_answer_is_in_the_closed_set_and_right() -> None:
    kinds = set()
    for index, scene in enumerate(SCENES):
        for qa in questions(scene, scene_rng(3, index, 4)):
            kinds.add(qa["type"])
            assert qa["answer"] in ANSWERS
            if qa["question"] == "how many objects are there?":
                assert ANSWERS.index(qa["answer"]) - ANSWERS.index("zero") == len(scene.things)
            if qa["type"] == "existence":
                asked = qa["question"].removeprefix("is there a").removeprefix("n").rstrip("?").split()
                there = any([t.look.colour, t.look.shape] == asked for t in scene.things)
                assert qa["answer"] == ("yes" if there else "no")
    assert kinds == {"colour", "shape", "count", "existence", "relation"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_count(tmp_path: Path) -> None:
    for name, count in (("few", 3), ("more", 5)):
        (tmp_path / name).mkdir()
        write_tabletop(tmp_path / name, seed=11, count=count, size=64)
    for k in range(3):
        few, more = (tmp_path / name / "images" / f"{k:04d}.jpg" for name in ("few", "more"))
        assert few.read_bytes() == more.read_bytes()
    few_lines, more_lines = (
        (tmp_path / n / "samples.jsonl").read_text().splitlines() for n in ("few", "more")
    )
    assert few_lines == more_lines[:3]
    assert make_sample(11, 0, 64)[0] != make_sample(12, 0, 64)[0]


def test_many_scenes_painted_by_several_processes_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("alone", 1000), ("together", 1)):
        monkeypatch.setattr(folder, "_WORTH_PROCESSES", few)
        (tmp_path / name).mkdir()
        write_tabletop(tmp_path / name, seed=3, count=60, size=32)
    alone, together = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("alone", "together")
    )
    assert len(alone) == 62
    assert alone == together


def test_a_folder_is_a_dataset_with_everything_in_it(tmp_path: Path) -> None:
    write_tabletop(tmp_path, seed=5, count=12, size=48)
    dataset = Dataset.open(tmp_path)
    assert len(dataset) == 12
    for sample in dataset.samples:
        assert Image.open(sample.image).size == (48, 48)
        assert len(sample.negatives) == len(sample.negative_kinds) == NEGATIVES
        assert (sample.label is None) == (len(sample.objects) > 1)


def test_pictures_differ_in_light_and_table() -> None:
    scene = SCENES[0]
    first, second = (Image.open(io.BytesIO(draw_scene(scene, scene_rng(3, k, 1), 64)[0])) for k in (0, 1))
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize(("seed", "count", "size"), [(-1, 1, 64), (0, 0, 64), (0, 1, 8), (0, 1, 5000)])
def test_impossible_worlds_are_refused(tmp_path: Path, seed: int, count: int, size: int) -> None:
    with pytest.raises(DataError, match="a tabletop world needs"):
        write_tabletop(tmp_path, seed, count, size)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "an `image` path"),
        (json.dumps({"image": "none.jpg"}), "does not exist"),
        (json.dumps({"image": "../../etc/passwd"}), "outside the folder"),
        (json.dumps({"image": "a.jpg", "captions": "one"}), "list of strings"),
        (json.dumps({"image": "a.jpg", "label": 3}), "must be a string"),
        (json.dumps({"image": "a.jpg", "qa": [1]}), "list of objects"),
        ("", "no samples"),
    ],
)
def test_a_malformed_dataset_is_refused_by_line(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "samples.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=complaint) as caught:
        Dataset.open(tmp_path)
    assert "samples.jsonl" in str(caught.value)


def test_a_folder_without_samples_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a dataset folder"):
        Dataset.open(tmp_path)
