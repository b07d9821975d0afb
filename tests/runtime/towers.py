"""A whole small bundle of one encoder by itself, written in a moment, with its golden pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pocketvl_runtime.golden import GOLDEN_FILE, Golden, VariantTolerance
from pocketvl_runtime.manifest import MANIFEST_FILE, EmbedTask, Manifest, Modality, component_of
from tests.runtime.bundles import IMAGE_PORT, file_entries, write_bundle

VARIANTS = ("onnx-fp32", "tflite-fp32")


def write_tower(root: Path, port: str = IMAGE_PORT) -> Path:
    """Writes what of the small bundle belongs to one of its embeddings, with `embed` as its only task."""
    write_bundle(root)
    component, processor = component_of(port), "image" if port == IMAGE_PORT else "text"
    manifest = Manifest.read(root / MANIFEST_FILE)
    golden = Golden.read(root / GOLDEN_FILE, manifest)
    variants = {name: manifest.variants[name] for name in VARIANTS}
    kept = {variant.files[component].file for variant in variants.values()} | {GOLDEN_FILE}
    kept |= {"tokenizer.json"} if processor == "text" else set()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).as_posix() not in kept:
            if processor == "image" and path.parent.name in ("images", "pixels"):
                continue
            path.unlink()
    limits = {port: golden.tolerance[VARIANTS[0]].ports[port]}
    replace(
        golden,
        inputs={processor: golden.inputs[processor]},
        outputs={port: golden.outputs[port]},
        answers={},
        tolerance=dict.fromkeys(VARIANTS, VariantTolerance(limits, {})),
    ).write(root / GOLDEN_FILE)
    alone = replace(
        manifest,
        model=replace(manifest.model, name=f"tiny-{processor}", modalities=(Modality(processor),)),
        processors={processor: manifest.processors[processor]},
        graphs={component: manifest.graphs[component]},
        variants={
            name: replace(each, files={component: each.files[component]}, comparable=())
            for name, each in variants.items()
        },
        tasks={"embed": EmbedTask(port)},
        files=file_entries(root),
    )
    (root / MANIFEST_FILE).write_text(alone.to_json(), encoding="utf-8")
    return root
