"""Puts graphs, tokenizer and golden pack together into a bundle folder."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.lower.backends import backend_of_file
from pocketvl.pipelines.golden_inputs import golden_images, golden_texts
from pocketvl.stage import Stage, installed_version, link_or_copy
from pocketvl.stage.base import links, settings
from pocketvl.tasks.contrastive_metrics import DEFAULT_TEMPLATE, Embeddings
from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    Golden,
    GoldenAnswers,
    GoldenImage,
    GoldenText,
    Scores,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import (
    MANIFEST_FILE,
    Engine,
    FileEntry,
    GraphSpec,
    Manifest,
    Precision,
    Role,
    Status,
    VariantSpec,
    variant_name,
)
from pocketvl_runtime.tasks import label_texts, probabilities, similarities
from pocketvl_runtime.text import Tokenizer

TASKS = ("match", "classify", "embed")
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
    manifest = Manifest(
        name=source.contract.name,
        family=source.contract.family,
        tasks=TASKS,
        space=source.space(),
        embedding_dim=source.embedding_dim,
        logit_scale=source.logit_scale,
        graphs={},
        variants={},
        preprocess=source.preprocess,
        tokenizer=source.tokenizer,
        labels=labels,
        label_template=DEFAULT_TEMPLATE,
        files=list_files(out),
        provenance={},
    )
    (out / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
    return manifest


def write_bundle(base: Path, graphs: Iterable[Path], stages: Iterable[Stage], out: Path) -> Manifest:
    """Writes a bundle with every variant whose graphs are there, none of them judged yet.

    Args:
        base: the bundle without graphs, as `write_base` wrote it.
        graphs: files named `<role>.<precision>.<onnx|tflite>`, of sealed results.
        stages: what made it all, for the provenance.
        out: an empty folder.
    """
    specs: dict[str, GraphSpec] = {}
    shutil.copytree(base, out, dirs_exist_ok=True)
    (out / "graphs").mkdir()
    for path in sorted(graphs, key=lambda p: p.name):
        role, precision, engine = path.name.split(".")
        link_or_copy(path, out / "graphs" / path.name)
        tensors = backend_of_file(path).graph_io(path)
        specs[path.name] = GraphSpec(
            Role(role),
            Engine(engine),
            Precision(precision),
            f"graphs/{path.name}",
            tensors.inputs,
            tensors.outputs,
        )
    manifest = replace(
        Manifest.read(base / MANIFEST_FILE),
        graphs=specs,
        variants=_variants(specs),
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
    kept = {graph for variant in variants.values() for graph in variant.graphs.values()}
    graphs = {name: spec for name, spec in manifest.graphs.items() if name in kept}
    dropped = {spec.file for name, spec in manifest.graphs.items() if name not in kept}
    for path in sorted(set(manifest.files) - dropped):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        copy = link_or_copy if path.startswith("graphs/") else shutil.copyfile
        copy(candidate / path, out / path)
    (out / GOLDEN_FILE).write_text(golden.to_json(), encoding="utf-8", newline="\n")
    judged = replace(manifest, graphs=graphs, variants=dict(variants), files=list_files(out))
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
    images = np.array([image.embedding for image in golden.images], np.float32)
    texts = np.array([text.embedding for text in golden.texts], np.float32)
    return Embeddings(images, texts, tuple(text.text for text in golden.texts))


def _variants(specs: Mapping[str, GraphSpec]) -> dict[str, VariantSpec]:
    variants: dict[str, VariantSpec] = {}
    for spec in specs.values():
        name = variant_name(spec.engine, spec.precision)
        before = variants[name].graphs if name in variants else {}
        graphs = {**before, spec.role: spec.graph_id}
        variants[name] = VariantSpec(spec.engine, spec.precision, Status.ACCEPTED, graphs)
    return variants


def golden_scores(images: np.ndarray, texts: np.ndarray, logit_scale: float) -> tuple[Scores, ...]:
    """What match says of each picture: float32 embeddings [I, D] and [N, D] -> scores [N] of each.

    Rounded, for the last digits of a sum depend on the order that a processor takes it in.
    """
    rows = []
    for image in images if len(texts) else ():
        similarity = similarities(image, texts)
        probability = probabilities(similarity, logit_scale)
        rows.append(Scores(*(tuple(v.round(_SCORE_DIGITS).tolist()) for v in (similarity, probability))))
    return tuple(rows)


def _write_golden(source: Checkpoint, calibration: Dataset, labels: tuple[str, ...], out: Path) -> None:
    import torch

    images: list[GoldenImage] = []
    (out / "golden" / "images").mkdir(parents=True)
    (out / "golden" / "pixels").mkdir()
    encoder = source.tower(Role.IMAGE_ENCODER)
    with torch.inference_mode(), _one_thread():
        for name, content in golden_images(calibration).items():
            pixels = preprocess(open_image(content), source.preprocess)
            (out / "golden" / "images" / name).write_bytes(content)
            expected = f"golden/pixels/{Path(name).stem}.png"
            (out / expected).write_bytes(_png(pixels))
            embedding = encoder(torch.from_numpy(pixels[None]))[0]
            images.append(GoldenImage(f"golden/images/{name}", expected, _floats(embedding.numpy())))
        strings = golden_texts(calibration)
        ids, embeddings = _embed_texts(source, strings)
        _, of_labels = _embed_texts(source, label_texts(DEFAULT_TEMPLATE, labels))
    texts = [
        GoldenText(text, tuple(row.tolist()), _floats(embedding))
        for text, row, embedding in zip(strings, ids, embeddings, strict=True)
    ]
    seen = np.array([image.embedding for image in images], np.float32)
    answers = GoldenAnswers(
        space=source.space(),
        logit_scale=source.logit_scale,
        labels=labels,
        label_template=DEFAULT_TEMPLATE,
        match=golden_scores(seen, embeddings, source.logit_scale),
        classify=golden_scores(seen, of_labels, source.logit_scale),
        tolerance={},
    )
    golden = Golden(tuple(images), tuple(texts), {}, answers)
    (out / GOLDEN_FILE).write_text(golden.to_json(), encoding="utf-8", newline="\n")


def _embed_texts(source: Checkpoint, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [N, T], and torch's embeddings float32 [N, D], one by one."""
    import torch

    encoding = Tokenizer(source.tokenizer_json, source.tokenizer).encode(texts)
    feeds = [encoding.ids, encoding.mask] if source.tokenizer.needs_mask else [encoding.ids]
    encoder = source.tower(Role.TEXT_ENCODER)
    rows = [
        encoder(*(torch.from_numpy(row[None]) for row in feed))[0].numpy()
        for feed in zip(*feeds, strict=True)
    ]
    return encoding.ids, np.array(rows, np.float32).reshape(len(texts), source.embedding_dim)


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
