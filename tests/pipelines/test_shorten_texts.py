"""A checkpoint whose texts are cut earlier: by recipe, and together with other steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import STEP_FILE
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.stage import plan, run
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import make_tiny_clip
from tests.pipelines.scenes import write_scenes

SHORTEN = '[[steps]]\nkind = "shorten-texts"\n'
TRIM = '[[steps]]\nkind = "trim-vocabulary"\n'
PRUNE = '[[steps]]\nkind = "prune"\nunits = ["neurons"]\nratio = 0.5\n'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six scenes with short labels."""
    return write_scenes(tmp_path / "data", ("cat", "dog", "a cat", "a dog", "cats", "dogs"))


def compressed(source: Path, data: Path, steps: str, cache: Path) -> tuple[Path, dict[str, object]]:
    recipe = cache.with_suffix(".toml")
    recipe.write_text(steps)
    stages = stages_of(source, data, read_compress_recipe(str(recipe)))
    folder = run(plan(stages), cache)[stages[-1]].folder
    done: dict[str, object] = json.loads((folder / STEP_FILE).read_text())["done"]
    return folder, done


def test_texts_are_as_long_as_the_longest_of_the_data(data: Path, tmp_path: Path) -> None:
    source = make_tiny_clip(tmp_path / "clip")
    folder, done = compressed(source, data, SHORTEN, tmp_path / "cache")
    before, after = read_contract(source), read_contract(folder)
    assert done == {"texts": 6, "longest": done["longest"], "tokens": [8, before.tokenizer.max_length]}
    assert after.tokenizer.max_length == 8
    texts = list(Dataset.open(data).texts)
    whole, short = (
        Tokenizer(each.tokenizer_json, each.tokenizer).encode(texts).ids for each in (before, after)
    )
    assert (whole[:, :8] == short).all()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config == {**json.loads((source / "tokenizer_config.json").read_text()), "model_max_length": 8}


@pytest.mark.parametrize("steps", [PRUNE + SHORTEN + TRIM, PRUNE + TRIM + SHORTEN])
def test_it_comes_before_or_after_a_trimmed_vocabulary(steps: str, data: Path, tmp_path: Path) -> None:
    folder, _ = compressed(make_tiny_clip(tmp_path / "clip"), data, steps, tmp_path / "cache")
    opened = open_checkpoint(folder)
    assert opened.tokenizer.max_length == 8
    assert opened.is_trimmed is False  # the folder's own


@pytest.mark.parametrize("steps", [SHORTEN + PRUNE, SHORTEN + "[steps.learn]\nphases = [{ steps = 3 }]"])
def test_nothing_else_comes_after_it(steps: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="shorten-texts comes last"):
        compressed(make_tiny_clip(tmp_path / "clip"), data, steps, tmp_path / "cache")


@pytest.mark.parametrize(
    ("length", "said"),
    [(2, "cannot be shortened to 2 tokens: at least 3"), (16, "to 16 tokens: .* now there are 16")],
)
def test_a_length_that_makes_no_sense_is_refused(length: int, said: str, data: Path, tmp_path: Path) -> None:
    steps = f"{SHORTEN}length = {length}\n"
    with pytest.raises(RecipeError, match=said):
        compressed(make_tiny_clip(tmp_path / "clip"), data, steps, tmp_path / "cache")


def test_a_text_that_needs_all_of_them_is_told(data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()]
    write_samples(
        data, [{**row, "captions": ["a photo of the red cat on a blue dog"]} for row in rows[:1]] + rows
    )
    with pytest.raises(RecipeError, match="a text has 14 of 16 tokens; leave the step out"):
        compressed(make_tiny_clip(tmp_path / "clip"), data, SHORTEN, tmp_path / "cache")
