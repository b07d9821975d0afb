"""A whole small bundle, written in a moment: two engines, float and int8, with its golden pack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers, processors

from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    AnswerTolerance,
    Golden,
    GoldenAnswers,
    GoldenImage,
    GoldenText,
    Scores,
    Tolerance,
)
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import (
    MANIFEST_FILE,
    Comparable,
    Engine,
    FileEntry,
    GraphSpec,
    Manifest,
    Precision,
    PreprocessSpec,
    ResizeMode,
    Role,
    Status,
    TensorSpec,
    TokenizerSpec,
    VariantSpec,
    variant_name,
)
from pocketvl_runtime.text import Tokenizer
from tests.runtime import graphs

PREPROCESS = PreprocessSpec(
    resize_mode=ResizeMode.SHORTEST_EDGE,
    resize_height=graphs.SIZE,
    resize_width=graphs.SIZE,
    crop_height=graphs.SIZE,
    crop_width=graphs.SIZE,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    rescale=1 / 255,
)
TOKENIZER = TokenizerSpec(length=graphs.LENGTH, pad_id=0, needs_mask=False)
TEXTS = ("a photo of a red cube", "the blue ball", "green")
LABELS = ("red cube", "blue ball", "green")
TEMPLATE = "a photo of a {label}"
SPACE = "sha256:tiny"
LOGIT_SCALE = 20.0
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32")

_IMAGE_IN = TensorSpec("pixels", "uint8", (1, graphs.SIZE, graphs.SIZE, 3))
_TEXT_IN = TensorSpec("ids", "int32", (1, graphs.LENGTH))
_OUT = TensorSpec("embedding", "float32", (1, graphs.DIM))
_WRITERS: dict[Engine, dict[Role, Callable[[Path], None]]] = {
    Engine.ONNX: {Role.IMAGE_ENCODER: graphs.onnx_image_graph, Role.TEXT_ENCODER: graphs.onnx_text_graph},
    Engine.TFLITE: {
        Role.IMAGE_ENCODER: graphs.tflite_image_graph,
        Role.TEXT_ENCODER: graphs.tflite_text_graph,
    },
}


def tokenizer_json() -> bytes:
    """A word-level tokenizer with bos and eos, whose own padding and truncation are nonsense on purpose."""
    made = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(graphs.WORDS)}, unk_token="<unk>")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    made.enable_truncation(5)
    made.enable_padding(length=33, pad_id=9, pad_token="cube")
    return made.to_str().encode()


def file_entries(root: Path) -> dict[str, FileEntry]:
    """Checksums of all files of a folder but the manifest."""
    return {
        path.relative_to(root).as_posix(): FileEntry(
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }


def write_bundle(root: Path) -> Path:
    """Writes the bundle into a new folder and returns that."""
    (root / "graphs").mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(tokenizer_json())
    specs, variants = {}, {}
    for name in VARIANTS:
        engine, precision = Engine(name.split("-")[0]), Precision(name.split("-")[1])
        roles = {}
        for role, write in _WRITERS[engine].items():
            graph_id = f"{role.value}.{precision.value}.{engine.value}"
            write(root / "graphs" / graph_id)
            spec = _IMAGE_IN if role is Role.IMAGE_ENCODER else _TEXT_IN
            specs[graph_id] = GraphSpec(role, engine, precision, f"graphs/{graph_id}", (spec,), (_OUT,))
            roles[role] = graph_id
        assert variant_name(engine, precision) == name
        comparable = (Comparable(SPACE, dict.fromkeys(roles, 0.99)),)
        variants[name] = VariantSpec(engine, precision, Status.ACCEPTED, roles, comparable)
    write_golden(root)
    manifest = Manifest(
        name="tiny",
        family="clip",
        tasks=("match", "classify"),
        space=SPACE,
        embedding_dim=graphs.DIM,
        logit_scale=LOGIT_SCALE,
        graphs=specs,
        variants=variants,
        preprocess=PREPROCESS,
        tokenizer=TOKENIZER,
        labels=LABELS,
        label_template=TEMPLATE,
        files=file_entries(root),
        provenance={"made": ["by hand"]},
    )
    (root / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return root


def write_golden(root: Path) -> None:
    """Two pictures, `TEXTS` and `LABELS`, with what they must give."""
    for folder in ("images", "pixels"):
        (root / "golden" / folder).mkdir(parents=True)
    images = []
    for name, size in (("wide.jpg", (61, 23)), ("tall.png", (9, 40))):
        file, pixels = f"golden/images/{name}", f"golden/pixels/{Path(name).stem}.png"
        picture(size, seed=size[0]).save(root / file)
        value = load_pixels(root / file, PREPROCESS)
        Image.fromarray(value).save(root / pixels)
        images.append(GoldenImage(file, pixels, tuple(graphs.image_embedding(value).tolist())))
    encoding = Tokenizer(tokenizer_json(), TOKENIZER).encode(TEXTS)
    texts = [
        GoldenText(text, tuple(ids.tolist()), tuple(graphs.text_embedding(ids).tolist()))
        for text, ids in zip(TEXTS, encoding.ids, strict=True)
    ]
    limit = {role: Tolerance(1e-4, 0.9999) for role in (Role.IMAGE_ENCODER, Role.TEXT_ENCODER)}
    seen = [np.asarray(image.embedding, np.float32) for image in images]
    answers = GoldenAnswers(
        space=SPACE,
        logit_scale=LOGIT_SCALE,
        labels=LABELS,
        label_template=TEMPLATE,
        match=scores(seen, TEXTS),
        classify=scores(seen, [f"a photo of a {label}" for label in LABELS]),
        tolerance=dict.fromkeys(VARIANTS, AnswerTolerance(1e-4, 1e-3, Status.ACCEPTED)),
    )
    Golden(tuple(images), tuple(texts), dict.fromkeys(VARIANTS, limit), answers).write(root / GOLDEN_FILE)


def scores(images: Sequence[NDArray[np.float32]], texts: Sequence[str]) -> tuple[Scores, ...]:
    """Of each picture's embedding [D], what match says of these texts; in plain numpy."""
    encoding = Tokenizer(tokenizer_json(), TOKENIZER).encode(texts)
    read = np.stack([graphs.text_embedding(ids) for ids in encoding.ids]).astype(np.float64)
    rows = []
    for image in images:
        similarity = read @ image.astype(np.float64)
        powers = np.exp(LOGIT_SCALE * similarity)
        rows.append(Scores(tuple(similarity.tolist()), tuple((powers / powers.sum()).tolist())))
    return tuple(rows)


def edit_golden(root: Path, edit: Callable[[Any], None]) -> None:
    """Changes a bundle's golden pack as parsed JSON, and the manifest's checksums with it."""
    path = root / GOLDEN_FILE
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    reseal(root)


def without_answers(golden: Any) -> None:
    """A parsed golden pack as schema version 1 had it."""
    golden.update(schema_version=1)
    del golden["answers"]


def picture(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Coloured noise of (width, height)."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def edit_manifest(root: Path, edit: Callable[[Any], None]) -> None:
    """Changes a bundle's manifest as parsed JSON."""
    path = root / MANIFEST_FILE
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def reseal(root: Path) -> None:
    """Gives the manifest the checksums of the files as they are now."""
    path = root / MANIFEST_FILE
    path.write_text(replace(Manifest.read(path), files=file_entries(root)).to_json(), encoding="utf-8")
