"""Puts graphs, tokenizer and golden pack together into a bundle folder."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.errors import LoweringError
from pocketvl.families.base import IMAGE, TEXT
from pocketvl.lower.backends import backend_of_file
from pocketvl.network.ports import Port
from pocketvl.pipelines.golden_inputs import golden_images, golden_texts
from pocketvl.stage import Stage, installed_version, link_or_copy
from pocketvl.stage.base import links, settings
from pocketvl.tasks.contrastive_metrics import DEFAULT_TEMPLATE, Embeddings
from pocketvl_runtime.backends import least_engine
from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    Golden,
    GoldenArray,
    GoldenImage,
    GoldenText,
    Scores,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import (
    MANIFEST_FILE,
    Activation,
    ComponentGraph,
    ContrastiveTask,
    Engine,
    FileEntry,
    InputPort,
    Manifest,
    Modality,
    ModelInfo,
    OutputPort,
    PortKind,
    Precision,
    Scale,
    Status,
    VariantFile,
    VariantSpec,
    port_name,
    tensors_of,
    variant_name,
)
from pocketvl_runtime.tasks import label_texts, probabilities, similarities
from pocketvl_runtime.text import Tokenizer

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

IMAGE_PORT = port_name("image_encoder", "embedding")
TEXT_PORT = port_name("text_encoder", "embedding")
_SCORE_DIGITS = 7
REPORT_FILES = ("report.json", "report.html")


def write_base(source: Checkpoint, calibration: Dataset, out: Path) -> Manifest:
    """Writes a bundle without graphs.

    Args:
        source: the opened checkpoint.
        calibration: where golden pictures and texts, and the labels, come from.
        out: an empty folder.
    """
    (out / "tokenizer.json").write_bytes(source.tokenizer_json)
    labels = tuple(sorted({s.label for s in calibration.samples if s.label}))
    _write_golden(source, calibration, labels, out)
    head = (IMAGE_PORT, TEXT_PORT, Scale(source.logit_scale, source.logit_scale), 0.0, Activation.SOFTMAX)
    manifest = Manifest(
        model=ModelInfo(source.contract.name, source.contract.family, (Modality.IMAGE, Modality.TEXT)),
        processors=source.contract.processors,
        graphs=_graphs(source),
        variants={},
        tasks={
            "match": ContrastiveTask(*head),
            "classify": ContrastiveTask(*head, labels=labels, template=DEFAULT_TEMPLATE),
        },
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
    for path in sorted(graphs, key=lambda p: p.name):
        component, precision, engine = path.name.split(".")
        link_or_copy(path, out / "graphs" / path.name)
        of_variant = files.setdefault((Engine(engine), Precision(precision)), {})
        of_variant[component] = _stored(path, manifest.graphs[component])
    manifest = replace(
        manifest,
        variants={
            variant_name(*form): VariantSpec.of(*form, Status.ACCEPTED, of_variant, least_engine(*form))
            for form, of_variant in files.items()
        },
        files=list_files(out),
        provenance=provenance_of(stages),
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
    kept = {stored.file for variant in variants.values() for stored in variant.files.values()}
    every = {stored.file for variant in manifest.variants.values() for stored in variant.files.values()}
    dropped = every - kept
    for path in sorted(set(manifest.files) - dropped):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        copy = link_or_copy if path.startswith("graphs/") else shutil.copyfile
        copy(candidate / path, out / path)
    (out / GOLDEN_FILE).write_text(golden.to_json(), encoding="utf-8", newline="\n")
    judged = replace(manifest, variants=dict(variants), files=list_files(out))
    (out / MANIFEST_FILE).write_text(judged.to_json(), encoding="utf-8", newline="\n")


def list_files(root: Path) -> dict[str, FileEntry]:
    """Every file of a bundle but the manifest itself and what was measured."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name not in (*REPORT_FILES, MANIFEST_FILE):
            content = path.read_bytes()
            found[name] = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
    return found


def golden_embeddings(golden: Golden) -> Embeddings:
    """The golden pack's expected embeddings as matrices."""
    images, texts = (
        np.array([array.values for array in golden.outputs[port]], np.float32)
        for port in (IMAGE_PORT, TEXT_PORT)
    )
    return Embeddings(images, texts, tuple(text.text for text in golden.texts))


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
    return VariantFile(f"graphs/{path.name}", found.signature)


def golden_scores(images: np.ndarray, texts: np.ndarray, logit_scale: float) -> tuple[Scores, ...]:
    """What match says of each picture: float32 embeddings [I, D] and [N, D] -> scores [N] of each.

    Rounded, for the last digits of a sum depend on the order that a processor takes it in.
    """
    rows = []
    for number, image in enumerate(images if len(texts) else ()):
        similarity = similarities(image, texts)
        probability = probabilities(similarity, logit_scale)
        of_both = (tuple(v.round(_SCORE_DIGITS).tolist()) for v in (probability, similarity))
        rows.append(Scores({IMAGE: number}, *of_both))
    return tuple(rows)


def _write_golden(source: Checkpoint, calibration: Dataset, labels: tuple[str, ...], out: Path) -> None:
    import torch

    images: list[GoldenImage] = []
    rows: list[np.ndarray] = []
    (out / "golden" / "images").mkdir(parents=True)
    (out / "golden" / "pixels").mkdir()
    encoder = source.component("image_encoder").module
    with torch.inference_mode(), _one_thread():
        for name, content in golden_images(calibration).items():
            pixels = preprocess(open_image(content), source.preprocess)
            (out / "golden" / "images" / name).write_bytes(content)
            expected = f"golden/pixels/{Path(name).stem}.png"
            (out / expected).write_bytes(_png(pixels))
            images.append(GoldenImage(f"golden/images/{name}", expected))
            rows.append(encoder(torch.from_numpy(pixels[None]))[0].numpy())
        strings = golden_texts(calibration)
        ids, embeddings = _embed_texts(source, strings)
        _, of_labels = _embed_texts(source, label_texts(DEFAULT_TEMPLATE, labels))
    seen, scale = np.array(rows, np.float32), source.logit_scale
    golden = Golden(
        inputs={
            IMAGE: tuple(images),
            TEXT: tuple(
                GoldenText(text, tuple(row.tolist())) for text, row in zip(strings, ids, strict=True)
            ),
        },
        outputs={IMAGE_PORT: _arrays(IMAGE, seen), TEXT_PORT: _arrays(TEXT, embeddings)},
        answers={
            "match": golden_scores(seen, embeddings, scale),
            "classify": golden_scores(seen, of_labels, scale),
        },
        tolerance={},
    )
    golden.write(out / GOLDEN_FILE)


def _arrays(processor: str, rows: np.ndarray) -> tuple[GoldenArray, ...]:
    """Embeddings [N, D] of a processor's inputs, in order."""
    return tuple(
        GoldenArray({processor: number}, (1, len(row)), _floats(row)) for number, row in enumerate(rows)
    )


def _embed_texts(source: Checkpoint, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [N, T], and torch's embeddings float32 [N, D], one by one."""
    import torch

    ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts).ids
    encoder = source.component("text_encoder").module
    rows = [encoder(torch.from_numpy(row[None]))[0].numpy() for row in ids]
    return ids, np.array(rows, np.float32).reshape(len(texts), source.embedding_dim)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch: sums by several differ in the last digit, and golden.json holds that."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _floats(values: np.ndarray) -> tuple[float, ...]:
    """float32 values as the shortest decimals that give them back."""
    return tuple(float(str(value)) for value in values.astype(np.float32))


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
