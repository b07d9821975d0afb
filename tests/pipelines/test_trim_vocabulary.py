"""A checkpoint with a trimmed vocabulary answers the data's texts as before, bit by bit, and reads others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pocketvl.compress.methods.trim_vocabulary import TrimVocabulary
from pocketvl.data.dataset import Dataset
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.base import TEXT
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.network.ports import PortKind
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import STEP_FILE, CompressCheckpoint
from pocketvl.pipelines.stages.training import TrainingData
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.stage import plan, run
from pocketvl.tasks.encoding import Encoder
from pocketvl.train.method import MethodInputs
from pocketvl.train.samples import PairSamples
from pocketvl_runtime.manifest import Canonical
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual
from tests.families.tiny_siglip import make_tiny_siglip
from tests.pipelines.scenes import write_scenes

Make = Callable[[Path], Path]


def legacy_clip(folder: Path) -> Path:
    return make_tiny_clip(folder, legacy_eos=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six scenes, the captions of which use few tokens."""
    return write_scenes(tmp_path / "data")


def trimmed(source: Path, data: Path, cache: Path, method: TrimVocabulary | None = None) -> Path:
    method = method or TrimVocabulary()
    stage = CompressCheckpoint(source, TrainingData(source, data), source, method)
    return run(plan([stage]), cache)[stage].folder


def embeddings(checkpoint: Checkpoint, texts: list[str]) -> torch.Tensor:
    (name,) = (
        name
        for name, each in checkpoint.contract.components.items()
        if any(port.kind is PortKind.TOKEN_IDS for port in each.inputs)
    )
    feed = Encoder.of_contract(checkpoint.contract).feed(name, texts=texts)
    inputs = feed.read(0, feed.rows)
    with torch.no_grad():
        found: torch.Tensor = checkpoint.component(name).module(*map(torch.from_numpy, inputs.values()))
    return found


@pytest.mark.parametrize("make", [make_tiny_clip, legacy_clip, make_tiny_dual, make_tiny_siglip])
def test_answers_to_the_data_stay_bit_by_bit(make: Make, data: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    folder = trimmed(source, data, tmp_path / "cache")
    before, after = open_checkpoint(source), open_checkpoint(folder)
    texts = list(Dataset.open(data).texts)
    assert torch.equal(embeddings(after, texts), embeddings(before, texts))
    kept, all_tokens = json.loads((folder / STEP_FILE).read_text())["done"]["tokens"]
    assert kept < all_tokens
    parameters = [sum(each.numel() for each in opened.model.parameters()) for opened in (before, after)]
    assert parameters[1] < parameters[0]
    assert before.space() != after.space()
    assert embeddings(after, ["words of NO caption, ½ 🙂"]).isfinite().all()


def test_transformers_reads_the_same_tokenizer(data: Path, tmp_path: Path) -> None:
    folder = trimmed(make_tiny_clip(tmp_path / "clip"), data, tmp_path / "cache")
    theirs, ours = AutoTokenizer.from_pretrained(folder), open_checkpoint(folder).contract
    texts = [*Dataset.open(data).texts, "words of no caption"]
    encoder = Encoder.of_contract(ours)
    feed = encoder.feed("text_encoder", texts=texts)
    (ids,) = feed.read(0, feed.rows).values()
    found = theirs(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
    assert (found == ids).all()
    assert not (folder / "vocab.json").exists()


def test_texts_of_the_recipe_stay_too(data: Path, tmp_path: Path) -> None:
    source = make_tiny_clip(tmp_path / "clip")
    text = "what colour is the purple ring?"
    folder = trimmed(source, data, tmp_path / "cache", TrimVocabulary(texts=(text,)))
    before, after = open_checkpoint(source), open_checkpoint(folder)
    assert torch.equal(embeddings(after, [text]), embeddings(before, [text]))
    assert len(after.tokenizer_json) > len(
        (trimmed(source, data, tmp_path / "cache") / "tokenizer.json").read_bytes()
    )


def test_what_cleans_texts_in_python_is_refused(data: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    cleaned = replace(opened.tokenizer, canonicalize=(Canonical.LOWER,))
    processors = {**opened.contract.processors, TEXT: cleaned}
    opened.contract = replace(opened.contract, processors=processors)
    samples = PairSamples(np.zeros((2, 1, 1, 3), np.uint8), np.zeros((2, 3), np.int32), [[0], [1]])
    inputs = MethodInputs(samples, opened.folder, texts=("a", "b"))
    with pytest.raises(RecipeError, match="the text_encoder has a tokenizer that changes texts in Python"):
        TrimVocabulary().apply(opened, inputs)


@pytest.mark.parametrize(
    "steps",
    [
        '[[steps]]\nkind = "trim-vocabulary"\n[[steps]]\nkind = "prune"\nunits = ["neurons"]\nratio = 0.5',
        '[[steps]]\nkind = "trim-vocabulary"\n[steps.learn]\nphases = [{ steps = 3 }]\nbatch_size = 4',
    ],
)
def test_nothing_comes_after_it(steps: str, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(steps)
    with pytest.raises(RecipeError, match="trim-vocabulary comes last"):
        stages_of(make_tiny_clip(tmp_path / "clip"), data, read_compress_recipe(str(recipe)))
