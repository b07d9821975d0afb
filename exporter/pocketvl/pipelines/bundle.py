"""Puts graphs, tokenizer and golden pack together into a bundle folder."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.devices.profiling import PROFILES
from pocketvl.errors import LoweringError
from pocketvl.families.base import TEXT
from pocketvl.lower.backends import backend_of_file
from pocketvl.lower.base import graph_files
from pocketvl.lower.least_engine import LeastEngine, newest
from pocketvl.network.ports import Port
from pocketvl.pipelines.golden_inputs import golden_images, golden_texts
from pocketvl.pipelines.golden_sounds import golden_sounds
from pocketvl.stage import Stage, installed_version, link_or_copy
from pocketvl.stage.base import links, settings
from pocketvl.stage.contents import Contents
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder, read_media
from pocketvl.tasks.golden import GoldenCases, GoldenInputs, ManifestTasks, expected_outputs
from pocketvl.tasks.outputs import Outputs
from pocketvl.threads import one_torch_thread
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    Golden,
    GoldenAudio,
    GoldenImage,
    GoldenInput,
    GoldenText,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import (
    MANIFEST_FILE,
    AudioProcessor,
    ComponentGraph,
    Engine,
    FileEntry,
    ImageProcessor,
    InputPort,
    Manifest,
    Modality,
    ModelInfo,
    OutputPort,
    PortKind,
    Precision,
    Status,
    VariantFile,
    VariantSpec,
    tensors_of,
    variant_name,
)
from pocketvl_runtime.obstacles import task_obstacle
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.tasks.base import Task
    from pocketvl.tasks.bundle_runner import BundleRunner

REPORT_FILES = ("report.json", "report.html")
_SAME_OUTPUT = 1e-3


def write_base(source: Checkpoint, calibration: Dataset, out: Path) -> Manifest:
    """Writes a bundle without graphs.

    Args:
        source: the opened checkpoint.
        calibration: where golden images and texts, and what tasks ask of them, come from.
        out: an empty folder.
    """
    contract = source.contract
    if contract.reads:
        (out / "tokenizer.json").write_bytes(source.tokenizer_json)
    cases = task_of(contract, source).golden
    tasks = cases.tasks(calibration)
    _write_golden(source, calibration, cases, tasks, out)
    manifest = Manifest(
        model=ModelInfo(contract.name, contract.family, tuple(map(Modality, contract.processors))),
        processors=contract.processors,
        graphs=_graphs(source),
        variants={},
        tasks=tasks,
        files=list_files(out),
        provenance={},
    )
    (out / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
    return manifest


def write_bundle(base: Path, graphs: Iterable[Path], stages: Iterable[Stage], out: Path) -> Manifest:
    """Writes a bundle with every variant whose graphs are there, none of them judged yet.

    Args:
        base: the bundle without graphs, as `write_base` wrote it.
        graphs: files named `<component>.<precision>.<onnx|tflite>`, of sealed results.
        stages: what made it all, for the provenance.
        out: an empty folder.
    """
    shutil.copytree(base, out, dirs_exist_ok=True)
    (out / "graphs").mkdir()
    manifest = Manifest.read(base / MANIFEST_FILE)
    files: dict[tuple[Engine, Precision], dict[str, VariantFile]] = {}
    least: dict[tuple[Engine, Precision], LeastEngine | None] = {}
    for path in sorted(graphs, key=lambda p: p.name):
        component, precision, engine = path.name.split(".")
        for file in graph_files(path):
            link_or_copy(file, out / "graphs" / file.name)
        form = (Engine(engine), Precision(precision))
        files.setdefault(form, {})[component] = _stored(path, manifest.graphs[component])
        least[form] = newest((least.get(form), backend_of_file(path).least_engine(path)))
    manifest = replace(
        manifest,
        variants={
            variant_name(*form): VariantSpec.of(
                *form, Status.ACCEPTED, of_variant, found.version if (found := least[form]) else None
            )
            for form, of_variant in files.items()
        },
        files=list_files(out),
        provenance=provenance_of(stages) | {"min_engine": _reasons(least)},
    )
    (out / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
    return manifest


def write_judged(
    candidate: Path, manifest: Manifest, golden: Golden, variants: Mapping[str, VariantSpec], out: Path
) -> None:
    """Copies a bundle with only the variants given, and its golden pack's tolerances set.

    Args:
        candidate: the bundle to copy from, a sealed result.
        manifest: its manifest.
        golden: the golden pack with tolerances.
        variants: what goes in, with status and what it may be compared with.
        out: an empty folder.
    """
    kept = {path for variant in variants.values() for path in variant.paths}
    every = {path for variant in manifest.variants.values() for path in variant.paths}
    dropped = every - kept
    for path in sorted(set(manifest.files) - dropped):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        copy = link_or_copy if path.startswith("graphs/") else shutil.copyfile
        copy(candidate / path, out / path)
    (out / GOLDEN_FILE).write_text(golden.to_json(), encoding="utf-8", newline="\n")
    judged = replace(manifest, variants=dict(variants), files=list_files(out))
    (out / MANIFEST_FILE).write_text(judged.to_json(), encoding="utf-8", newline="\n")


def is_bundle_of(bundle: Bundle, source: Checkpoint) -> bool:
    """Whether a bundle was exported from a checkpoint.

    Embeddings say so by their space. Of a model without any, torch's golden outputs are computed again; they
    may differ by what another processor rounds differently.
    """
    if set(bundle.manifest.graphs) != set(source.contract.components):
        return False  # of a checkpoint whose second head is dropped, embeddings are the same
    spaces = bundle.manifest.spaces
    if spaces or bundle.manifest.model.family != source.contract.family:
        return spaces == {source.space()}
    cases = task_of(source.contract, source).golden
    tasks = bundle.manifest.tasks
    if tasks != cases.tasks(Dataset(bundle.root, ())):
        return False
    golden = bundle.golden()
    found = _run_torch(source, cases, inputs_of(bundle, golden), tasks)
    return all(
        rows.shape == found[port].shape and np.allclose(rows, found[port], atol=_SAME_OUTPUT)
        for port, rows in expected_outputs(golden).arrays.items()
    )


def inputs_of(bundle: Bundle, golden: Golden) -> GoldenInputs:
    """The inputs of a bundle's golden pack."""
    media = (*(each.file for each in golden.images), *(each.file for each in golden.sounds))
    return GoldenInputs([bundle.file(file) for file in media], [text.text for text in golden.texts])


def runnable_tasks(bundle: Bundle) -> ManifestTasks:
    """The tasks of a bundle that this runtime can run."""
    manifest = bundle.manifest
    return {name: each for name, each in manifest.tasks.items() if task_obstacle(manifest, name) is None}


def golden_outputs(bundle: Bundle, task: Task, variant: BundleRunner) -> Outputs:
    """What a variant makes of its bundle's golden pack, and of what the bundle's tasks ask beside it."""
    return task.golden.outputs(variant, inputs_of(bundle, bundle.golden()), runnable_tasks(bundle))


def list_files(root: Path) -> dict[str, FileEntry]:
    """Every file of a bundle but the manifest itself and what was measured."""
    found = Contents().files(root, of_result=True)
    return {
        name: FileEntry(found[name].sha256, found[name].size_bytes)
        for name in sorted(found, key=PurePosixPath)
        if name not in (*REPORT_FILES, MANIFEST_FILE)
    }


def profiles_in(folder: Path) -> tuple[str, ...]:
    """The profiles in a bundle's folder. They took time on a device, and each says which bundle it is of."""
    return tuple(path.relative_to(folder).as_posix() for path in sorted(folder.glob(f"{PROFILES}/*.json*")))


def _graphs(source: Checkpoint) -> dict[str, ComponentGraph]:
    """The contracts of a checkpoint's components."""
    space = source.space()
    return {
        name: ComponentGraph(
            tuple(InputPort(p.name, p.dtype, p.shape, p.kind, p.source) for p in ports.inputs),
            tuple(_output(port, space) for port in ports.outputs),
        )
        for name, ports in source.contract.components.items()
    }


def _output(port: Port, space: str) -> OutputPort:
    of = space if port.kind is PortKind.EMBEDDING else None
    return OutputPort(port.name, port.dtype, port.shape, port.kind, of)


def _reasons(least: Mapping[tuple[Engine, Precision], LeastEngine | None]) -> dict[str, str]:
    """By variant, what its `min_engine` is for."""
    return {variant_name(*form): found.reason for form, found in least.items() if found is not None}


def _stored(path: Path, contract: ComponentGraph) -> VariantFile:
    """A graph file as a variant lists it, where its tensors are those of its component.

    Raises:
        LoweringError: they are others.
    """
    found = backend_of_file(path).graph_io(path)
    for ports, tensors in ((contract.inputs, found.inputs), (contract.outputs, found.outputs)):
        wanted = tensors_of(ports, {})
        if set(tensors) != set(wanted):
            raise LoweringError(
                f"{path.name} has {sorted(map(str, tensors))}, not {sorted(map(str, wanted))}"
            )
    weights = next((f"graphs/{file.name}" for file in graph_files(path) if file != path), None)
    return VariantFile(f"graphs/{path.name}", found.signature, weights=weights)


def _write_golden(
    source: Checkpoint, calibration: Dataset, cases: GoldenCases, tasks: ManifestTasks, out: Path
) -> None:
    contract = source.contract
    media: tuple[GoldenInput, ...] = ()
    if contract.senses and isinstance(contract.media, AudioProcessor):
        media = _write_sounds(calibration, contract.media, out)
    elif contract.senses:
        media = _write_images(calibration, contract.preprocess, out)
    texts = golden_texts(cases.texts(calibration)) if contract.reads else ()
    given: dict[str, tuple[GoldenInput, ...]] = {}
    if media:
        given[contract.modality.value] = media
    if texts:
        ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts).ids
        rows = zip(texts, ids, strict=True)
        given[TEXT] = tuple(GoldenText(text, tuple(row.tolist())) for text, row in rows)
    files = [out / each.file for each in media if not isinstance(each, GoldenText)]
    inputs = GoldenInputs(files, texts)
    outputs = _run_torch(source, cases, inputs, tasks)
    golden = Golden(
        inputs=given,
        outputs=cases.arrays(inputs, outputs),
        answers=cases.answers(inputs, outputs, tasks),
        tolerance={},
    )
    golden.write(out / GOLDEN_FILE)


def _run_torch(source: Checkpoint, cases: GoldenCases, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
    """What torch makes of golden inputs, one row at a time."""
    from pocketvl.tasks.torch_runner import TorchRunner

    runner = TorchRunner(source.components, Encoder.of_contract(source.contract), batch=1)
    with one_torch_thread():  # golden.json holds the last digit
        return cases.outputs(runner, inputs, tasks)


def _write_images(calibration: Dataset, processor: ImageProcessor, out: Path) -> tuple[GoldenImage, ...]:
    """Writes the golden images, and the pixels that must come of them."""
    (out / "golden" / "images").mkdir(parents=True)
    (out / "golden" / "pixels").mkdir()
    images = []
    for name, content in golden_images(calibration).items():
        image = GoldenImage(f"golden/images/{name}", f"golden/pixels/{Path(name).stem}.png")
        (out / image.file).write_bytes(content)
        (out / image.pixels).write_bytes(_png(preprocess(open_image(content), processor)))
        images.append(image)
    return tuple(images)


def _write_sounds(calibration: Dataset, processor: AudioProcessor, out: Path) -> tuple[GoldenAudio, ...]:
    """Writes the golden sounds, and the features that must come of them."""
    (out / "golden" / "audio").mkdir(parents=True)
    (out / "golden" / "features").mkdir()
    sounds = []
    for name, content in golden_sounds(calibration, processor).items():
        sound = GoldenAudio(f"golden/audio/{name}", f"golden/features/{Path(name).stem}.f32")
        (out / sound.file).write_bytes(content)
        features = read_media(out / sound.file, processor)
        (out / sound.features).write_bytes(features.astype("<f4").tobytes())
        sounds.append(sound)
    return tuple(sounds)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def provenance_of(stages: Iterable[Stage]) -> dict[str, object]:
    """What a manifest says of how its files were made: stages with their settings, and versions of tools."""
    every: dict[str, Stage] = {}
    for stage in stages:
        _collect(stage, every)
    told = [{"stage": s.name, "version": s.version, "settings": settings(s)} for s in every.values()]
    tools = sorted({"pocketvl"} | {tool for stage in every.values() for tool in stage.tools})
    return {"stages": told, "tools": {tool: installed_version(tool) for tool in tools}}


def _collect(stage: Stage, every: dict[str, Stage]) -> None:
    inputs: Sequence[Stage | Path] = [at for each in links(stage).values() for at in each]
    for at in inputs:
        if isinstance(at, Stage):
            _collect(at, every)
    every.setdefault(f"{stage.name} {settings(stage)}", stage)
