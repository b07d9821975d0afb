"""What every family promises, for each of `CASES`: contract, forward, lowering, integers, training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from pocketvl import api
from pocketvl.compress.costs import costs_of
from pocketvl.compress.distil import train_student
from pocketvl.compress.methods.drop_reranker import DropReranker
from pocketvl.compress.methods.shorten_texts import ShortenTexts
from pocketvl.compress.methods.trim_vocabulary import TrimVocabulary
from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import FAMILIES, open_checkpoint, read_contract, uninitialised_component
from pocketvl.families.base import Component, Contract, MediaProcessor, example_inputs
from pocketvl.families.batches import batches, cut
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.component_shape import ComponentShape
from pocketvl.families.layers.prefix import read_lengths
from pocketvl.lower.backends import backend_of
from pocketvl.network.heads import EmbeddingHead
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.ports import MEDIA_KINDS, ComponentPorts, PortKind, token_input
from pocketvl.network.precisions import QUANTIZED
from pocketvl.network.tolerances import ParityLimits
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.pipelines.variants import refused_layer
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fold import fold_, load_folded_
from pocketvl.quantize.settings import QatSettings
from pocketvl.quantize.simulate import simulated
from pocketvl.recipes.compress_recipe import METHODS
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks.parity import measure_parity
from pocketvl.tasks.training import teacher_outputs
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.method import MethodInputs
from pocketvl.train.samples import SAMPLES, TrainingSamples
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from pocketvl_runtime.backends.versions import release
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.manifest import AudioProcessor, Engine, Modality, Precision
from pocketvl_runtime.selftest import selftest
from pocketvl_runtime.text import Tokenizer
from tests.families.cases import CASES, FamilyCase, Inputs
from tests.families.heard import write_heard

LOWERED = [
    (engine, precision)
    for engine in Engine
    for precision in (Precision.FP32, Precision.FP16, *QUANTIZED)
    if refused_layer(engine, precision) is None
]
_SAMPLES, _CALIBRATION = 128, 64
_WORDS = (
    "a",
    "photo",
    "of",
    "red",
    "blue",
    "circle",
    "square",
    "left",
    "above",
    "what",
    "colour",
    "is",
    "the",
    "thing",
    "two",
    "cats",
    "on",
)
_TRAINING = 12
_STORED = {torch.float32: 1e-6, torch.float16: 2e-2}
"""What outputs may move by when weights are saved in a type."""
_SIMULATED_FLOORS = {Precision.INT8: 0.999}
_SIMULATED_FLOOR = 0.995
"""Centred cosine, median, of an engine's outputs to torch's simulation of the same integers; lower where
inputs are rounded as they come, which each engine does by its own ranges."""


def inputs_of(contract: Contract, count: int, seed: int) -> Inputs:
    """By port: smooth random images as pixels or sounds as spectrograms, and texts of random words as ids."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(_WORDS, random.integers(2, 7))) for _ in range(count)]
    media = _media(contract.media, count, random) if contract.senses else None
    ids = Tokenizer(contract.tokenizer_json, contract.tokenizer).encode(texts).ids if contract.reads else None
    arrays: dict[str, NDArray[Any]] = {}
    for ports in contract.components.values():
        for port in ports.inputs:
            made = media if port.kind in MEDIA_KINDS else ids
            if port.source in contract.processors:
                assert made is not None
                arrays[port.name] = made
    if contract.reranker is not None:
        before, _, hidden = contract.reranker.hidden.partition(".")
        arrays[hidden] = run_ports(open_checkpoint(contract.folder).component(before), arrays)[hidden]
    return arrays


def _media(processor: MediaProcessor, count: int, random: np.random.Generator) -> NDArray[Any]:
    coarse = random.integers(0, 256, (count, 4, 4, 3))
    if isinstance(processor, AudioProcessor):  # dB, as coarse in time and pitch
        _, _, frames, mels = processor.output.shape
        rows, columns = (np.arange(size) * 4 // size for size in (frames, mels))
        levels = coarse[:, rows][:, :, columns, 0] / 4 - 80
        return (levels + random.normal(scale=5, size=levels.shape))[:, None].astype(np.float32)
    coarse = coarse.repeat(processor.height // 4, axis=1).repeat(processor.width // 4, axis=2)
    return (coarse + random.integers(-20, 21, coarse.shape)).clip(0, 255).astype(np.uint8)


def run_ports(component: Component, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    with torch.no_grad():
        found = component.module(*(torch.from_numpy(inputs[port.name]) for port in component.inputs))
    rows = (found,) if isinstance(found, torch.Tensor) else found
    return {port.name: values.numpy() for port, values in zip(component.outputs, rows, strict=True)}


def run_torch(component: Component, inputs: Inputs) -> NDArray[np.float32]:
    """All outputs of each sample, flat."""
    return np.concatenate([rows.reshape(len(rows), -1) for rows in run_ports(component, inputs).values()], 1)


def samples(component: Component, inputs: Inputs) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Feeds of batch 1 for an engine."""
    names = [port.name for port in component.inputs]
    for index in range(len(inputs[names[0]])):
        yield {name: inputs[name][index : index + 1] for name in names}


@dataclass
class Tried:
    """One family's tiny checkpoint, and what was made of it so far; each thing once."""

    case: FamilyCase
    folder: Path
    work: Path

    @cached_property
    def contract(self) -> Contract:
        return read_contract(self.folder)

    @cached_property
    def opened(self) -> Checkpoint:
        return open_checkpoint(self.folder)

    @cached_property
    def inputs(self) -> Inputs:
        return inputs_of(self.contract, _SAMPLES, seed=1)

    @cached_property
    def training(self) -> TrainingSamples:
        """Rows of images and texts of which each belongs with one, and not with the next."""
        fed = inputs_of(self.contract, _TRAINING, seed=3)
        by_kind: dict[PortKind, NDArray[Any]] = {
            port.kind: fed[port.name] for ports in self.ports for port in ports.inputs
        }
        none: NDArray[Any] = np.zeros((0, 0, 0, 3))
        media = next((values for kind, values in by_kind.items() if kind in MEDIA_KINDS), none)
        ids = by_kind.get(PortKind.TOKEN_IDS, np.zeros((0, 0)))
        pairs = [(row, (row + 1) % _TRAINING) for row in range(_TRAINING)]
        return SAMPLES[self.contract.head.kind](media, ids.astype(np.int32), pairs)

    @property
    def ports(self) -> tuple[ComponentPorts, ...]:
        return tuple(self.contract.components.values())

    @cached_property
    def prepared(self) -> dict[str, Component]:
        """The components as they are calibrated and lowered: what can be folded is folded."""
        found = {}
        for name in self.contract.components:  # each of its own checkpoint, since components share weights
            component = found[name] = open_checkpoint(self.folder).component(name)
            fold_(component.module.requires_grad_(False), self.examples(component))
        return found

    @cached_property
    def integers(self) -> dict[tuple[str, Precision], QuantizedComponent]:
        fed = inputs_of(self.contract, _CALIBRATION, seed=2)
        found = {}
        for name, component in self.prepared.items():
            module, examples = component.module, self.examples(component)
            feeds = [tuple(fed[p.name][k : k + 1] for p in component.inputs) for k in range(_CALIBRATION)]
            seen = calibrate(module, feeds)
            tables, final = token_tables(module, examples), final_linear(module, examples)
            for precision in QUANTIZED:
                spec = component_spec(
                    module,
                    precision,
                    tables,
                    final,
                    unquantized=component.unquantized,
                    dynamic=component.dynamic,
                )
                found[name, precision] = quantize_component(module, spec, seen)
        return found

    def examples(self, component: Component) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(self.inputs[port.name][:1]) for port in component.inputs)

    def graph(self, name: str, engine: Engine, precision: Precision) -> Path:
        """A lowered component."""
        backend, component = backend_of(engine), self.prepared[name]
        path = self.work / f"{name}.{precision.value}{backend.suffix}"
        if path.exists():
            return path
        if precision is Precision.FP32:
            examples = zip(component.inputs, self.examples(component), strict=True)
            outputs = [port.name for port in component.outputs]
            backend.export(component.module, {p.name: value for p, value in examples}, path, outputs)
        elif precision is Precision.FP16:
            backend.cast_fp16(self.graph(name, engine, Precision.FP32), path)
        else:
            integers = self.integers[name, precision]
            backend.write_quantized(self.graph(name, engine, Precision.FP32), integers, path)
        backend.check(path)
        return path

    def run(self, name: str, engine: Engine, precision: Precision) -> dict[str, NDArray[np.float32]]:
        """The outputs of a lowered component for `inputs`."""
        component = self.prepared[name]
        path = self.graph(name, engine, precision)
        return {
            port.name: RUN[engine](path, samples(component, self.inputs), port.name)
            for port in component.outputs
        }


Feeds = Iterator[dict[str, NDArray[np.generic]]]


def _run_onnx(path: Path, feeds: Feeds, port: str) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([port], feed)[0] for feed in feeds])


def _run_litert(path: Path, feeds: Feeds, port: str) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return np.concatenate([runner(**feed)[port].copy() for feed in feeds])


RUN: Mapping[Engine, Callable[[Path, Feeds, str], NDArray[np.float32]]] = {
    Engine.ONNX: _run_onnx,
    Engine.TFLITE: _run_litert,
}


def test_every_family_has_a_case_and_every_engine_is_run() -> None:
    assert {case.family for case in CASES} == {family.name for family in FAMILIES}
    assert set(RUN) == set(Engine)


@pytest.fixture(scope="module", params=[pytest.param(case, marks=case.marks, id=case.name) for case in CASES])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    case: FamilyCase = request.param
    work = tmp_path_factory.mktemp(case.name)
    (work / "graphs").mkdir()
    return Tried(case, case.tiny(work / "checkpoint"), work / "graphs")


def test_every_op_of_its_float_graphs_is_known_to_be_in_old_engines(tried: Tried) -> None:
    """An op that is not in the table would ask for the newest LiteRT, and shut out what can run it."""
    for name in tried.prepared:
        for precision in (Precision.FP32, Precision.FP16):
            least = backend_of(Engine.TFLITE).least_engine(tried.graph(name, Engine.TFLITE, precision))
            assert least is not None
            assert release(least.version) < (1,), least


def test_the_contract_is_read_without_weights(tried: Tried, tmp_path: Path) -> None:
    copied = tried.case.tiny(tmp_path / tried.folder.name)
    for path in copied.glob("*.safetensors"):
        path.unlink()
    contract = read_contract(copied)
    assert contract.components == tried.opened.contract.components
    assert contract.head == tried.opened.contract.head
    for name, component in tried.opened.components.items():
        assert (component.inputs, component.outputs) == (
            contract.components[name].inputs,
            contract.components[name].outputs,
        )


def test_components_give_what_transformers_gives(tried: Tried) -> None:
    wanted = tried.case.reference(tried.folder, tried.contract, tried.inputs)
    for name, component in tried.opened.components.items():
        found = run_ports(component, tried.inputs)
        for port in component.outputs:
            assert found[port.name].shape[1:] == port.shape[1:]
            np.testing.assert_allclose(found[port.name], wanted.pop(f"{name}.{port.name}"), atol=2e-5)
    assert not wanted


_ATTENDS_TO_PADDING = {"siglip", "siglip2", "siglip_text_model", "open_clip-mobileclip"}


def test_tokens_that_a_component_does_not_read_can_be_cut_off(tried: Tried) -> None:
    for component in tried.prepared.values():
        texts = token_input(component.inputs)
        if texts is None:
            continue
        inputs = [tried.inputs[port.name] for port in component.inputs]
        whole = run_torch(component, tried.inputs)
        lengths = read_lengths(component.module, torch.from_numpy(inputs[texts]))
        assert bool((lengths < inputs[texts].shape[1]).any()) == (tried.case.name not in _ATTENDS_TO_PADDING)
        for rows, length in batches(component.module, inputs[texts], _SAMPLES, size=32):
            shown = cut([values[rows] for values in inputs], texts, length)
            found = run_torch(component, dict(zip([p.name for p in component.inputs], shown, strict=True)))
            np.testing.assert_allclose(found, whole[rows], atol=1e-5)


def test_a_saved_checkpoint_opens_as_it_was(tried: Tried, tmp_path: Path) -> None:
    tried.opened.save(tmp_path / "saved")
    again = open_checkpoint(tmp_path / "saved")
    assert again.space() == tried.opened.space()
    for name, component in again.components.items():
        before = run_torch(tried.opened.components[name], tried.inputs)
        np.testing.assert_array_equal(run_torch(component, tried.inputs), before)


def test_folding_changes_no_output_and_is_loaded_without_the_checkpoints_weights(tried: Tried) -> None:
    for name, component in tried.prepared.items():
        folded = run_torch(component, tried.inputs)
        np.testing.assert_allclose(folded, run_torch(tried.opened.components[name], tried.inputs), atol=5e-5)
        bare = uninitialised_component(tried.contract, name)
        load_folded_(bare.module, component.module.state_dict())
        np.testing.assert_array_equal(run_torch(bare, tried.inputs), folded)


def test_gradients_reach_every_parameter_of_a_component(tried: Tried) -> None:
    opened = open_checkpoint(tried.folder)
    for component in opened.components.values():
        component.module.requires_grad_(True)
        inputs = (torch.from_numpy(tried.inputs[port.name][:16]) for port in component.inputs)
        found = component.module(*inputs)
        rows = (found,) if isinstance(found, torch.Tensor) else found
        torch.stack([each.pow(3).sum() for each in rows]).sum().backward()  # type: ignore[no-untyped-call]
        without = [name for name, p in component.module.named_parameters() if p.grad is None]
        assert without == []


def failures(limits: ParityLimits, reference: NDArray[np.float32], found: NDArray[np.float32]) -> list[str]:
    parity = measure_parity(reference, found)
    measured = {name: getattr(parity, name) for name in vars(limits)}
    return [
        f"{name} {value}"
        for name, value in measured.items()
        if (limit := getattr(limits, name)) is not None
        and (value > limit if name == "max_abs" else value < limit)
    ]


@pytest.mark.parametrize(("engine", "precision"), LOWERED)
def test_lowered_components_are_within_the_familys_tolerances(
    tried: Tried, engine: Engine, precision: Precision
) -> None:
    (family,) = (each for each in FAMILIES if each.name == tried.case.family)
    for name, component in tried.prepared.items():
        found = tried.run(name, engine, precision)
        for port, reference in run_ports(component, tried.inputs).items():
            rows = (each.reshape(len(each), -1) for each in (reference, found[port]))
            assert failures(family.tolerances[precision], *rows) == [], f"{name}.{port}"


@pytest.mark.parametrize(("engine", "precision"), [each for each in LOWERED if each[1] in QUANTIZED])
def test_engines_compute_what_torch_simulates(tried: Tried, engine: Engine, precision: Precision) -> None:
    for name, component in tried.prepared.items():
        with simulated(component.module, tried.integers[name, precision]):
            wanted = run_ports(component, tried.inputs)
        found = tried.run(name, engine, precision)
        for port, rows in wanted.items():
            parity = measure_parity(*(each.reshape(len(each), -1) for each in (rows, found[port])))
            floor = _SIMULATED_FLOORS.get(precision, _SIMULATED_FLOOR)
            assert parity.centred_cosine_median > floor, f"{name}.{port}"


PHASE = (Phase(2),)
METHOD_SETTINGS: Mapping[str, Callable[[str], dict[str, object]]] = {
    "reinitialize": lambda name: {},
    "prune": lambda name: {"ratio": 0.5, "components": (name,)},
    "prune-filters": lambda name: {"ratio": 0.25, "component": name},
    "prune-cross-modal": lambda name: {"ratio": 0.5, "component": name},
    "sparsify": lambda name: {"sparsity": 0.5, "components": (name,)},
    "drop-layers": lambda name: {"keep": {name: 1}},
    "low-rank": lambda name: {"ratio": 0.5, "components": (name,)},
    "qat": lambda name: {"training": QatSettings(PHASE, batch_size=4)},
}
SAVES = ("prune", "prune-filters", "prune-cross-modal", "drop-layers", "low-rank")
"""Methods after which a component has fewer multiply-adds."""


def test_every_method_is_tried() -> None:
    others = {TrimVocabulary.kind, ShortenTexts.kind, DropReranker.kind}
    assert METHOD_SETTINGS.keys() | others == set(METHODS)


def test_a_second_head_is_dropped_and_the_first_answers_as_before(tried: Tried, tmp_path: Path) -> None:
    inputs = MethodInputs(tried.training, tried.folder)
    checkpoint = open_checkpoint(tried.folder)
    if tried.contract.reranker is None:
        with pytest.raises(RecipeError, match="the model has no second head"):
            DropReranker().run(checkpoint, inputs)
        return
    DropReranker().run(checkpoint, inputs)
    checkpoint.save(tmp_path / "first")
    again = open_checkpoint(tmp_path / "first")
    assert again.contract.reranker is None
    assert again.space() == tried.opened.space()
    assert set(again.components) == set(tried.opened.components) - {tried.contract.reranker.component}
    for name, component in again.components.items():
        assert (component.inputs, component.outputs) == (
            checkpoint.component(name).inputs,
            checkpoint.component(name).outputs,
        )
        before = run_ports(tried.opened.component(name), tried.inputs)
        for port, rows in run_ports(component, tried.inputs).items():
            np.testing.assert_allclose(rows, before[port], atol=1e-6)


def test_a_trimmed_vocabulary_changes_no_answer_to_its_texts(tried: Tried, tmp_path: Path) -> None:
    if not tried.contract.reads:
        with pytest.raises(RecipeError, match="the image_encoder reads no texts"):
            TrimVocabulary().apply(
                open_checkpoint(tried.folder), MethodInputs(tried.training, tried.folder, texts=("a",))
            )
        return
    texts = ("a photo of a red circle", "two cats and one dog", "a red dog", "one photo")
    before, after = open_checkpoint(tried.folder), open_checkpoint(tried.folder)
    TrimVocabulary().apply(after, MethodInputs(tried.training, tried.folder, texts=texts))
    after.save(tmp_path / "trimmed")
    again = open_checkpoint(tmp_path / "trimmed")
    assert sum(each.numel() for each in again.model.parameters()) < sum(
        each.numel() for each in before.model.parameters()
    )
    for name, component in before.components.items():
        wanted, found = (
            run_torch(each.component(name), _read(each, component, texts)) for each in (before, again)
        )
        np.testing.assert_allclose(found, wanted, atol=_STORED[before.dtype])


def test_shortened_texts_have_the_answers_of_before(tried: Tried, tmp_path: Path) -> None:
    texts = ("a red dog", "two cats", "a")
    checkpoint, inputs = (
        open_checkpoint(tried.folder),
        MethodInputs(tried.training, tried.folder, texts=texts),
    )
    if not tried.contract.reads or tried.case.name in _ATTENDS_TO_PADDING:
        with pytest.raises(RecipeError, match="reads no texts|reads padding like words"):
            ShortenTexts().apply(checkpoint, inputs)
        return
    length = tried.contract.tokenizer.max_length
    done = ShortenTexts(length - 1).apply(checkpoint, inputs)
    assert done["tokens"] == [length - 1, length]
    checkpoint.save(tmp_path / "short")
    again = open_checkpoint(tmp_path / "short")
    assert again.contract.components == checkpoint.contract.components
    assert again.tokenizer.max_length == length - 1
    for component, short in again.components.items():
        whole = tried.opened.components[component]
        wanted, found, saved = (
            run_torch(each, _read(of, each, texts))
            for of, each in (
                (tried.opened, whole),
                (checkpoint, checkpoint.components[component]),
                (again, short),
            )
        )
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        np.testing.assert_allclose(saved, wanted, atol=_STORED[tried.opened.dtype] * 10)
    again.save(tmp_path / "again")
    assert open_checkpoint(tmp_path / "again").tokenizer == again.tokenizer


def _read(checkpoint: Checkpoint, component: Component, texts: Sequence[str]) -> Inputs:
    """What a component is shown of texts, and of pictures without anything on them."""
    tokenizer = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
    encoded = tokenizer.encode(list(texts))
    shown = {PortKind.TOKEN_IDS: encoded.ids, PortKind.ATTENTION_MASK: encoded.mask}
    empty = zip(component.inputs, example_inputs(component), strict=True)
    return {
        port.name: shown[port.kind] if port.kind in shown else values.numpy().repeat(len(texts), 0)
        for port, values in empty
    }


@pytest.mark.parametrize("kind", METHOD_SETTINGS)
def test_a_method_either_works_on_a_component_or_says_why_not(
    tried: Tried, kind: str, tmp_path: Path
) -> None:
    for name in tried.contract.components:
        checkpoint = open_checkpoint(tried.folder)
        before = costs_of(checkpoint)[name]
        settings = METHOD_SETTINGS[kind](name)
        if kind == "reinitialize":
            shape = ComponentShape(width=16, layers=1, heads=2)
            settings = {"shapes": dict.fromkeys(tried.contract.components, shape)}
        method = METHODS[kind](**settings)
        method.check(tuple(tried.contract.components))
        inputs = MethodInputs(tried.training, tried.folder, work=tmp_path / f"{name}-work")
        if method.refusal(checkpoint, name) is not None:
            with pytest.raises(RecipeError) as caught:
                method.run(checkpoint, inputs)
            assert "\n" not in str(caught.value)
            continue
        method.run(checkpoint, inputs)
        checkpoint.save(tmp_path / name)
        again = open_checkpoint(tmp_path / name)
        assert (costs_of(again)[name].macs < before.macs) == (kind in (*SAVES, "reinitialize"))
        changed, stored = (run_torch(each.component(name), tried.inputs) for each in (checkpoint, again))
        np.testing.assert_allclose(stored, changed, atol=_STORED[checkpoint.dtype])


def test_a_student_is_distilled_a_step(tried: Tried, tmp_path: Path) -> None:
    student, teacher = open_checkpoint(tried.folder), tried.opened
    task = training_task(tried.contract)
    modules = {name: teacher.component(name).module for name in task.components}
    wanted = teacher_outputs(task, modules, tried.training, mirrored=True)
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    losses = LossWeights(hidden=1.0) if set(task.components) <= set(teacher.stacks) else LossWeights()
    settings = TrainingSettings(PHASE, batch_size=4, losses=losses)
    reports = train_student(task, student, teacher, tried.training, wanted, settings, tmp_path / "work")
    assert all(np.isfinite(list(row.values())).all() for each in reports.values() for row in each.losses)
    changed = [
        name for name, value in student.model.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed


def test_a_bundle_passes_its_golden_self_test(tried: Tried, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    if tried.contract.modality is Modality.AUDIO:
        write_heard(tmp_path / "data", 21, 12)
    else:
        write_tabletop(tmp_path / "data", 21, 12, size=40)
    result = api.export(
        tried.folder,
        tmp_path / "out",
        calibration=tmp_path / "data",
        variants=("onnx-fp32", "tflite-fp32"),
        cache=tmp_path / "cache",
    )
    assert result.failures == ()
    report = selftest(Bundle.open(tmp_path / "out"), ("onnx-fp32", "tflite-fp32"))
    assert report.failures == ()
    assert (report.answers > 0) == (not isinstance(tried.contract.head, EmbeddingHead))
    assert (report.images + report.sounds > 0) == tried.contract.senses
    assert (report.texts > 0) == tried.contract.reads


def _file(folder: Path, name: str) -> Path:
    """A file of transformers' folders, or what open_clip calls it."""
    theirs = folder / f"open_clip_{name}"
    return theirs if theirs.exists() else folder / name


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: _file(folder, name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        _file(folder, name).write_bytes(content)

    return apply


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: _write(name, _file(folder, name).read_bytes()[:-100])(folder)


def _edit_weights(edit: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = _file(folder, "model.safetensors")
        weights = load_file(path)
        edit(weights)
        save_file(weights, path, {"format": "pt"})

    return apply


def _first(weights: dict[str, torch.Tensor]) -> str:
    return min(name for name, value in weights.items() if value.ndim == 2)


def _spoil(weights: dict[str, torch.Tensor]) -> None:
    weights[_first(weights)][0, 0] = torch.nan


def _widen(weights: dict[str, torch.Tensor]) -> None:
    name = _first(weights)
    weights[name] = torch.cat([weights[name], weights[name]], dim=1).contiguous()


def _drop(weights: dict[str, torch.Tensor]) -> None:
    del weights[_first(weights)]


def _add(weights: dict[str, torch.Tensor]) -> None:
    weights["nobody.knows.this"] = torch.zeros(2)


def _image_size(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    stored = json.loads(path.read_text())
    if "hop_length" in stored:
        stored["hop_length"] = 16
    else:
        stored["size"] = stored["crop_size"] = {"height": 24, "width": 24}
    path.write_text(json.dumps(stored))


OF_PROCESSORS = ("no tokenizer", "tokenizer empty", "processor is text", "images of another size")
HOSTILE: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "no config": (_remove("config.json"), r"config\.json"),
    "config cut": (_cut("config.json"), "not valid JSON"),
    "config of a list": (_write("config.json", b"[]"), "not a JSON object"),
    "no weights": (_remove("model.safetensors"), r"model\.safetensors"),
    "weights cut": (_cut("model.safetensors"), "safetensors"),
    "weights are text": (_write("model.safetensors", b"nope"), "safetensors"),
    "weight not finite": (_edit_weights(_spoil), "NaN|not finite|infin"),
    "weight too wide": (_edit_weights(_widen), "config.json asks for"),
    "weight missing": (_edit_weights(_drop), "lack"),
    "weight unknown": (_edit_weights(_add), r"nobody\.knows\.this"),
    "no tokenizer": (_remove("tokenizer.json"), r"tokenizer\.json"),
    "tokenizer empty": (_write("tokenizer.json", b"{}"), "not a tokenizer"),
    "processor is text": (_write("preprocessor_config.json", b"nope"), "not valid JSON"),
    "images of another size": (_image_size, "24 x 24|spectrograms are 501 x 8"),
    "compression of no version": (_write("compression.json", b"{}"), "version None"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_wrong_with_a_folder_is_one_clear_line(tried: Tried, kind: str, tmp_path: Path) -> None:
    spoil, says = HOSTILE[kind]
    if spoil is _image_size and tried.case.name == "siglip2":
        pytest.skip("a NaFlex model takes pictures of any size")
    if kind in OF_PROCESSORS and not tried.case.has_processors:
        pytest.skip("its processors have no files of their own")
    needs = {
        "tokenizer": tried.contract.reads,
        "processor": tried.contract.senses,
        "images": tried.contract.senses,
    }
    if not all(has for what, has in needs.items() if what in kind):
        pytest.skip("no component reads that")
    folder = tried.case.tiny(tmp_path / "spoiled")
    spoil(folder)
    with pytest.raises(SourceError, match=says) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
