"""`pocketvl compress`: a recipe's steps, what arrives in the files, and what goes wrong in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from pocketvl.families import open_checkpoint
from pocketvl.families.layers.compression import read_compression
from tests.e2e.conftest import Exported, pocketvl

RECIPE = """
[[steps]]
kind = "prune"
units = ["neurons", "heads"]
ratio = 0.5
score = "taylor"
rounds = 2
learn.batch_size = 8
learn.phases = [{ components = ["image_encoder"], steps = 2 }, { components = ["text_encoder"], steps = 2 }]

[[steps]]
kind = "low-rank"
ratio = 0.25
components = ["text_encoder"]

[[steps]]
kind = "learn"
learn.batch_size = 8
learn.losses = { contrast = 0.5 }
learn.phases = [{ steps = 2, losses = { embedding = 0.0 } }, { steps = 2 }]
"""


@dataclass(frozen=True)
class Small:
    """A compressed tiny model, and its bundle."""

    checkpoint: Path
    bundle: Path
    stdout: str
    command: tuple[object, ...]


@pytest.fixture(scope="module")
def small(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp("compressed")
    (root / "recipe.toml").write_text(RECIPE)
    command = ("compress", exported.checkpoint, "--recipe", root / "recipe.toml", "--data", exported.data)
    done = pocketvl(*command, "-o", root / "small", cache=exported.cache)
    assert done.returncode == 0, done.stderr
    bundle = root / "bundle"
    variants = ("--variants", "onnx-fp32,tflite-fp32,onnx-int8,tflite-int8", "--keep-failing")
    export = ("export", root / "small", "-o", bundle, "--calibration", exported.calibration, *variants)
    made = pocketvl(*export, cache=exported.cache)
    assert made.returncode == 0, made.stderr
    return Small(root / "small", bundle, done.stdout, command)


def _onnx_shapes(path: Path) -> list[tuple[int, ...]]:
    return sorted(tuple(each.dims) for each in onnx.load(path).graph.initializer if len(each.dims) == 2)


def _tflite_shapes(path: Path) -> list[tuple[int, ...]]:
    interpreter = Interpreter(model_path=str(path))
    return sorted(tuple(t["shape"]) for t in interpreter.get_tensor_details() if len(t["shape"]) == 2)


def test_the_exported_graphs_have_the_smaller_shapes(small: Small) -> None:
    """Of 64 neurons 32 are left, of two heads of 16 one; the text tower's linears are two of a lower rank."""
    graphs = {path.name: path for path in (small.bundle / "graphs").iterdir()}
    for name, path in graphs.items():
        shapes = _onnx_shapes(path) if path.suffix == ".onnx" else _tflite_shapes(path)
        sides = {side for shape in shapes for side in shape}
        assert 64 not in sides, name
        if "image" in name:
            both = {shape for shape in shapes if set(shape) == {16, 32}}
            assert both, name  # queries, keys, values of one head
    assert read_compression(small.checkpoint).linears["vision_model.encoder.layers.0.mlp.fc1"].outputs == 32


def test_the_command_says_what_it_came_to(small: Small) -> None:
    assert "parameters" in small.stdout
    assert f"checkpoint: {small.checkpoint}" in small.stdout
    log = json.loads((small.checkpoint / "compress.json").read_text())["steps"]
    assert [each["step"] for each in log] == [
        "prune neurons and heads",
        "distil from the teacher",
        "prune neurons and heads",
        "distil from the teacher",
        "factorise linears",
        "distil from the teacher",
    ]
    assert set(log[-1]["losses"]) == {"1-image_encoder+text_encoder", "2-image_encoder+text_encoder"}
    assert (small.checkpoint / "losses.png").stat().st_size > 1000
    assert "How the checkpoint learned" in (small.bundle / "report.html").read_text()


def test_a_second_run_changes_nothing(small: Small, exported: Exported) -> None:
    before = {path.name: path.read_bytes() for path in small.checkpoint.iterdir()}
    assert pocketvl(*small.command, "-o", small.checkpoint, cache=exported.cache).returncode == 0
    assert {path.name: path.read_bytes() for path in small.checkpoint.iterdir()} == before


def test_a_compressed_checkpoint_can_be_compressed_again(
    small: Small, exported: Exported, tmp_path: Path
) -> None:
    (tmp_path / "more.toml").write_text('[[steps]]\nkind = "drop-layers"\nkeep = { image_encoder = 1 }\n')
    command = ("compress", small.checkpoint, "--recipe", tmp_path / "more.toml", "--data", exported.data)
    done = pocketvl(*command, "-o", tmp_path / "smaller", cache=exported.cache)
    assert done.returncode == 0, done.stderr
    assert open_checkpoint(tmp_path / "smaller").config["vision_config"]["num_hidden_layers"] == 1


def test_a_checkpoint_that_no_compression_made_is_not_replaced(exported: Exported, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in exported.checkpoint.iterdir()}
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ("compress", exported.checkpoint, "--recipe", tmp_path / "recipe.toml", "--data", exported.data)
    done = pocketvl(*command, "-o", exported.checkpoint, cache=exported.cache)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in exported.checkpoint.iterdir()} == before


def _recipe(text: str) -> Callable[[Path, Exported], tuple[object, ...]]:
    def words(root: Path, exported: Exported) -> tuple[object, ...]:
        (root / "recipe.toml").write_text(text)
        return exported.checkpoint, "--recipe", root / "recipe.toml", "--data", exported.data

    return words


def _empty_data(root: Path, exported: Exported) -> tuple[object, ...]:
    (root / "empty").mkdir()
    (root / "empty" / "samples.jsonl").write_text("")
    (root / "recipe.toml").write_text(RECIPE)
    return exported.checkpoint, "--recipe", root / "recipe.toml", "--data", root / "empty"


def _wrong_shapes(root: Path, exported: Exported) -> tuple[object, ...]:
    broken = root / "broken"
    broken.mkdir()
    for path in exported.checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    shape = {"inputs": 32, "outputs": 5}
    document = {"schema_version": 1, "linears": {"vision_model.encoder.layers.0.mlp.fc1": shape}}
    (broken / "compression.json").write_text(json.dumps(document))
    (root / "recipe.toml").write_text(RECIPE)
    return broken, "--recipe", root / "recipe.toml", "--data", exported.data


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (_recipe('[[steps]]\nkind = "prune"\nratoi = 0.5\n'), "steps[0].ratoi: there is no such key"),
        (
            _recipe('[[steps]]\nkind = "prune"\nparameters = 100\nrounds = 4\n'),
            "parameters = 100 cannot be reached",
        ),
        (
            _recipe('[[steps]]\nkind = "drop-layers"\nkeep = { image_encoder = 5 }\n'),
            "has 2 layers; 5 of them cannot stay",
        ),
        (_empty_data, "no samples in it"),
        (_wrong_shapes, "fc1.bias is [64], config.json asks for [5]"),
    ],
)
def test_what_goes_wrong_is_one_line(
    exported: Exported,
    tmp_path: Path,
    words: Callable[[Path, Exported], tuple[object, ...]],
    complaint: str,
) -> None:
    done = pocketvl("compress", *words(tmp_path, exported), "-o", tmp_path / "out", cache=exported.cache)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert complaint in errors[0]
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr
