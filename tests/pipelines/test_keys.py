"""Keys of results: whatever a stage reads of a checkpoint is in the key of its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.base import Component, example_inputs
from pocketvl.pipelines.compress import CompressRequest, compress
from pocketvl.pipelines.export import ExportSettings, export
from pocketvl.pipelines.stages.components import OfComponent, PrepareComponent, open_component
from pocketvl.pipelines.stages.lowering import LowerGraph
from pocketvl.pipelines.stages.quantizing import TrainQat
from pocketvl.stage import Inputs, Stage, plan, run
from pocketvl.stage.desk import Desk
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime.manifest import Engine
from tests.e2e.conftest import make_outlier_clip
from tests.families.tiny import make_tiny_clip
from tests.families.weight_reads import WeightReads

Floats = npt.NDArray[np.float32]
COMPONENTS = ("image_encoder", "text_encoder")
TOLERANCE = 2e-5  # what folding LayerNorms changes is a tenth of it


def noise(component: Component) -> torch.Tensor:
    """A few inputs of a component."""
    (example,), rng = example_inputs(component), np.random.default_rng(0)
    is_text = component.name == "text_encoder"
    feed = rng.integers(0, 300 if is_text else 256, (4, *example.shape[1:]))
    if is_text:  # texts with ends in several places, as of old and new tokenizers
        feed[0, 5], feed[1, 3], feed[1, 6], feed[2, 7] = 380, 380, 381, 379
    return torch.from_numpy(feed).to(example.dtype)


@dataclass(frozen=True)
class EmbedNoise(OfComponent, Stage):
    """Outputs of a component on random inputs: a stage that opens the module and is handed weights alone."""

    version: ClassVar[int] = 1

    prepared: PrepareComponent

    def run(self, source: Inputs, out: Path) -> None:
        component = open_component(self.source, self.component, source["prepared"])
        with torch.inference_mode():
            found = component.module(noise(component))
        np.save(out / "embeddings.npy", found.numpy())


def cached(checkpoint: Path, name: str, cache: Path) -> Floats:
    """The embeddings by way of stages, from the cache where nothing seems to have changed."""
    stage = EmbedNoise(PrepareComponent(checkpoint, name))
    found: Floats = np.load(run(plan([stage]), cache)[stage].folder / "embeddings.npy")
    return found


def right(checkpoint: Path, name: str) -> Floats | None:
    """The embeddings by the checkpoint as it is now; None where no model of its weights is so."""
    try:
        opened = open_checkpoint(checkpoint)
    except SourceError:
        return None
    component = opened.component(name)
    with torch.inference_mode():
        found: Floats = component.module(noise(component)).numpy()
    return found


def other_values(value: object) -> list[object]:
    """Values that a key of a configuration might have instead."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value // 2, 2]
    if isinstance(value, float):
        return [value * 100 + 0.1]
    if isinstance(value, str):
        return ["gelu"]
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return [[item * 0.5 + 0.1 for item in value]]
    return []


FILES: dict[str, dict[str, Any]] = {
    "preprocessor_config.json": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "rescale_factor": 0.004,
        "do_rescale": True,
        "do_normalize": True,
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 16},
}


def sections(checkpoint: Path) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The objects of a checkpoint's files whose keys are changed one by one."""
    config = json.loads((checkpoint / "config.json").read_text())
    found: dict[tuple[str, str | None], dict[str, Any]] = {("config.json", None): config}
    for name in ("text_config", "vision_config"):
        found["config.json", name] = config[name]
    for name in FILES:
        found[name, None] = json.loads((checkpoint / name).read_text())
    return found


def test_no_key_of_a_checkpoint_can_change_and_leave_a_stale_result(tmp_path: Path) -> None:
    checkpoint = make_tiny_clip(tmp_path / "tiny")
    for name, content in FILES.items():
        (checkpoint / name).write_text(json.dumps(content))
    before = {role: cached(checkpoint, role, tmp_path / "cache") for role in COMPONENTS}
    that_matter = set()
    for (file, section), values in sections(checkpoint).items():
        kept = (checkpoint / file).read_text()
        for key, other in ((key, other) for key, value in values.items() for other in other_values(value)):
            changed = json.loads(kept)
            (changed[section] if section else changed)[key] = other
            (checkpoint / file).write_text(json.dumps(changed))
            for role in COMPONENTS:
                wanted = right(checkpoint, role)
                if wanted is not None and not np.allclose(wanted, before[role], rtol=0, atol=TOLERANCE):
                    found = cached(checkpoint, role, tmp_path / "cache")
                    np.testing.assert_allclose(
                        found, wanted, rtol=0, atol=TOLERANCE, err_msg=f"{file} {section} {key}"
                    )
                    that_matter.add((section or file, key))
        (checkpoint / file).write_text(kept)
    assert that_matter >= {
        ("text_config", "hidden_act"),
        ("text_config", "layer_norm_eps"),
        ("text_config", "num_attention_heads"),
        ("text_config", "eos_token_id"),
        ("vision_config", "hidden_act"),
        ("vision_config", "layer_norm_eps"),
        ("vision_config", "num_attention_heads"),
        ("preprocessor_config.json", "image_mean"),
        ("preprocessor_config.json", "image_std"),
        ("preprocessor_config.json", "rescale_factor"),
        ("preprocessor_config.json", "do_rescale"),
        ("preprocessor_config.json", "do_normalize"),
        ("tokenizer_config.json", "model_max_length"),
    }


def test_an_added_file_is_noticed_too(tmp_path: Path) -> None:
    checkpoint = make_tiny_clip(tmp_path / "tiny")
    stage = LowerGraph(PrepareComponent(checkpoint, COMPONENTS[0]), Engine.ONNX)
    before = set(stage.reads())
    (checkpoint / "compression.json").write_text("{}")
    assert set(stage.reads()) == before | {"compression.json"}


def test_a_training_for_few_bits_depends_on_the_weights_too(tmp_path: Path) -> None:
    """The scale of similarities is one of them, and no component's."""
    checkpoint = make_tiny_clip(tmp_path / "tiny", max_shard_size="40KB")
    prepared = tuple(PrepareComponent(checkpoint, role) for role in COMPONENTS)
    reads = TrainQat(prepared, (), (), ()).reads()  # type: ignore[arg-type]
    assert {path.name for path in checkpoint.glob("*safetensors*")} <= set(reads)


WATCHED: list[tuple[Path, set[Path]]] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and WATCHED and isinstance(arguments[0], str | Path | bytes):
        root, opened = WATCHED[-1]
        path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]).absolute()
        if path.is_relative_to(root):
            opened.add(path)


sys.addaudithook(watch)


@contextmanager
def watching(root: Path) -> Iterator[set[Path]]:
    WATCHED.append((root, set()))
    try:
        yield WATCHED[-1][1]
    finally:
        WATCHED.pop()


@pytest.fixture
def undeclared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """By stage, the files that it opened and that are not in its key; filled while plans run."""
    found: dict[str, list[str]] = {}
    plain = Desk._run

    def checked(self: Desk, inputs: Any, out: Path, work: Path | None) -> None:
        known = [at if isinstance(at, Path) else at.folder for each in inputs.values() for at in each]
        known += [*self.stage.reads().values(), out.parent, *([work] if work else [])]
        with watching(tmp_path) as opened:
            plain(self, inputs, out, work)
        for path in sorted(opened):
            if path.is_dir() or any(path.is_relative_to(at.absolute()) for at in known):
                continue
            found.setdefault(self.stage.name, []).append(str(path.relative_to(tmp_path)))

    monkeypatch.setattr(Desk, "_run", checked)
    return found


@pytest.mark.slow
def test_stages_of_an_export_open_nothing_that_is_not_in_their_keys(
    tmp_path: Path, undeclared: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed, count in (("calibration", 21, 12), ("data", 22, 40)):
        (tmp_path / name).mkdir()
        write_tabletop(tmp_path / name, seed, count, size=40)
    settings = ExportSettings(
        make_outlier_clip(tmp_path / "tiny"),  # so that layers fall back and are ranked
        tmp_path / "bundle",
        tmp_path / "calibration",
        tmp_path / "data",
        ("onnx-fp16", "onnx-int8"),
        keep_failing=True,
    )
    stages, reads = [], WeightReads(monkeypatch)
    export(settings, tmp_path / "cache", lambda event: stages.append(event.stage.name))
    assert (
        reads.of(settings.source) == 4
    )  # two components are prepared; golden pack and reference run the model
    assert {"quantize-component", "rank-layers", "lower-graph", "judge-bundle"} <= set(stages)
    assert undeclared == {}


@pytest.mark.slow
def test_stages_of_a_compression_open_nothing_that_is_not_in_their_keys(
    tmp_path: Path, undeclared: dict[str, list[str]]
) -> None:
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 40, size=40)
    recipe = tmp_path / "recipe.toml"
    prune = '[[steps]]\nkind = "prune"\nunits = ["neurons"]\nratio = 0.5\n'
    recipe.write_text(f'{prune}[[steps]]\nkind = "low-rank"\nratio = 0.3\n')
    request = CompressRequest(
        make_tiny_clip(tmp_path / "tiny"), str(recipe), tmp_path / "data", tmp_path / "out"
    )
    stages = []
    compress(request, tmp_path / "cache", lambda event: stages.append(event.stage.name))
    assert {"compress-checkpoint", "finish-checkpoint"} <= set(stages)
    assert undeclared == {}
