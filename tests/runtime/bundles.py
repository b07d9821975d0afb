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

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.golden import (
    GOLDEN_FILE,
    AnswerTolerance,
    Golden,
    GoldenArray,
    GoldenImage,
    GoldenText,
    Scores,
    Tolerance,
    VariantTolerance,
)
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import (
    DIGEST_KEY,
    MANIFEST_FILE,
    Activation,
    Comparable,
    ComponentGraph,
    ContrastiveTask,
    DType,
    Engine,
    FileEntry,
    ImageProcessor,
    InputPort,
    Manifest,
    Modality,
    ModelInfo,
    Normalization,
    OutputPort,
    Padding,
    PortKind,
    Precision,
    ResizeMode,
    Scale,
    Status,
    TextProcessor,
    VariantFile,
    VariantSpec,
    manifest_digest,
    variant_name,
)
from pocketvl_runtime.text import Tokenizer
from tests.runtime import graphs

_SIZE = (graphs.SIZE, graphs.SIZE)
PREPROCESS = ImageProcessor.bicubic(
    ResizeMode.SHORTEST_EDGE, _SIZE, _SIZE, Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255)
)
TOKENIZER = TextProcessor(graphs.LENGTH, Padding(0))
TEXTS = ("a photo of a red cube", "the blue ball", "green")
LABELS = ("red cube", "blue ball", "green")
TEMPLATE = "a photo of a {label}"
SPACE = "sha256:tiny"
LOGIT_SCALE = 20.0
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32")
IMAGE_PORT, TEXT_PORT = "image_encoder.embedding", "text_encoder.embedding"

_OUT = OutputPort("embedding", DType.FLOAT32, (1, graphs.DIM), PortKind.EMBEDDING, SPACE)
GRAPHS = {
    "image_encoder": ComponentGraph(
        (InputPort("pixels", DType.UINT8, (1, *_SIZE, 3), PortKind.PIXELS, "image"),), (_OUT,)
    ),
    "text_encoder": ComponentGraph(
        (InputPort("ids", DType.INT32, (1, graphs.LENGTH), PortKind.TOKEN_IDS, "text"),), (_OUT,)
    ),
}
_WRITERS: dict[Engine, dict[str, Callable[[Path], None]]] = {
    Engine.ONNX: {"image_encoder": graphs.onnx_image_graph, "text_encoder": graphs.onnx_text_graph},
    Engine.TFLITE: {"image_encoder": graphs.tflite_image_graph, "text_encoder": graphs.tflite_text_graph},
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
    variants = {}
    for name in VARIANTS:
        engine, precision = Engine(name.split("-")[0]), Precision(name.split("-")[1])
        files = {}
        for component, write in _WRITERS[engine].items():
            file = f"graphs/{component}.{precision.value}.{engine.value}"
            write(root / file)
            files[component] = VariantFile(file, "serving_default" if engine is Engine.TFLITE else None)
        assert variant_name(engine, precision) == name
        comparable = (Comparable(SPACE, dict.fromkeys(files, 0.99)),)
        variants[name] = VariantSpec.of(engine, precision, Status.ACCEPTED, files, comparable=comparable)
    write_golden(root)
    head = (IMAGE_PORT, TEXT_PORT, Scale(LOGIT_SCALE, LOGIT_SCALE), 0.0, Activation.SOFTMAX)
    manifest = Manifest(
        model=ModelInfo("tiny", "clip", (Modality.IMAGE, Modality.TEXT)),
        processors={"image": PREPROCESS, "text": TOKENIZER},
        graphs=GRAPHS,
        variants=variants,
        tasks={"match": ContrastiveTask(*head), "classify": ContrastiveTask(*head, LABELS, TEMPLATE)},
        files=file_entries(root),
        provenance={"made": ["by hand"]},
    )
    (root / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return root


def write_golden(root: Path) -> None:
    """Two pictures, `TEXTS` and `LABELS`, with what they must give."""
    images, pixels = golden_images(root)
    seen = [graphs.image_embedding(each) for each in pixels]
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode(TEXTS).ids
    limits = VariantTolerance(
        dict.fromkeys((IMAGE_PORT, TEXT_PORT), Tolerance(1e-4, 0.9999)),
        dict.fromkeys(("match", "classify"), AnswerTolerance(1e-4, 1e-3)),
    )
    Golden(
        inputs={"image": images, "text": golden_texts(TEXTS)},
        outputs={
            IMAGE_PORT: _arrays("image", seen),
            TEXT_PORT: _arrays("text", [graphs.text_embedding(row) for row in ids]),
        },
        answers={
            "match": scores(seen, TEXTS),
            "classify": scores(seen, [f"a photo of a {label}" for label in LABELS]),
        },
        tolerance=dict.fromkeys(VARIANTS, limits),
    ).write(root / GOLDEN_FILE)


def golden_images(root: Path) -> tuple[tuple[GoldenImage, ...], list[NDArray[np.uint8]]]:
    """Writes two pictures and what must become of them; also returns those pixels."""
    for folder in ("images", "pixels"):
        (root / "golden" / folder).mkdir(parents=True)
    images, seen = [], []
    for name, size in (("wide.jpg", (61, 23)), ("tall.png", (9, 40))):
        file, pixels = f"golden/images/{name}", f"golden/pixels/{Path(name).stem}.png"
        picture(size, seed=size[0]).save(root / file)
        value = load_pixels(root / file, PREPROCESS)
        Image.fromarray(value).save(root / pixels)
        images.append(GoldenImage(file, pixels))
        seen.append(value)
    return tuple(images), seen


def golden_texts(texts: Sequence[str]) -> tuple[GoldenText, ...]:
    """Texts with their ids."""
    ids = Tokenizer(tokenizer_json(), TOKENIZER).encode(texts).ids
    return tuple(GoldenText(text, tuple(row.tolist())) for text, row in zip(texts, ids, strict=True))


def _arrays(processor: str, rows: Sequence[NDArray[np.float32]]) -> tuple[GoldenArray, ...]:
    return tuple(
        GoldenArray({processor: number}, (1, len(row)), tuple(row.tolist()))
        for number, row in enumerate(rows)
    )


def scores(images: Sequence[NDArray[np.float32]], texts: Sequence[str]) -> tuple[Scores, ...]:
    """Of each picture's embedding [D], what match says of these texts; in plain numpy."""
    encoding = Tokenizer(tokenizer_json(), TOKENIZER).encode(texts)
    read = np.stack([graphs.text_embedding(ids) for ids in encoding.ids]).astype(np.float64)
    rows = []
    for number, image in enumerate(images):
        similarity = read @ image.astype(np.float64)
        powers = np.exp(LOGIT_SCALE * similarity)
        probability = tuple((powers / powers.sum()).tolist())
        rows.append(Scores({"image": number}, probability, tuple(similarity.tolist())))
    return tuple(rows)


def edit_golden(root: Path, edit: Callable[[Any], None]) -> None:
    """Changes a bundle's golden pack as parsed JSON, and the manifest's checksums with it."""
    path = root / GOLDEN_FILE
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    reseal(root)


def picture(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Coloured noise of (width, height)."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def edit_manifest(root: Path, edit: Callable[[Any], Any]) -> None:
    """Changes a bundle's manifest as parsed JSON, and its checksum with it, as whoever makes bundles can."""
    path = root / MANIFEST_FILE
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(with_digest(value), encoding="utf-8")


def with_digest(value: Any) -> str:
    """A manifest's JSON with the right checksum, whatever is in it; an infinity is a number too large."""
    if not isinstance(value, dict):
        return json.dumps(value)
    bare = {key: item for key, item in value.items() if key != DIGEST_KEY}
    text = json.dumps(bare).replace("Infinity", "1e999")
    try:
        digest = manifest_digest(text)
    except BundleError:
        digest = "0" * 64  # it has no canonical form
    return f'{text[:-1]}{", " if bare else ""}"{DIGEST_KEY}": "{digest}"}}'


def reseal(root: Path) -> None:
    """Gives the manifest the checksums of the files as they are now."""
    path = root / MANIFEST_FILE
    path.write_text(replace(Manifest.read(path), files=file_entries(root)).to_json(), encoding="utf-8")
