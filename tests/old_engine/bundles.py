"""Exports tiny bundles with every form of layer that TFLite graphs hold, for `judge`.

python -m tests.old_engine.bundles FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pocketvl import api
from pocketvl.network.precisions import QUANTIZED
from pocketvl.pipelines.variants import refused_layer
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime.manifest import Engine, Precision, variant_name
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import make_vilt_folder

EVERY = tuple(
    variant_name(Engine.TFLITE, precision)
    for precision in (Precision.FP32, Precision.FP16, *QUANTIZED)
    if refused_layer(Engine.TFLITE, precision) is None
)
_CLIP, _VILT = {"match_hard": 100.0}, {"ask": 100.0}
_PRODUCTS = 'products = "whole"\n'
_BUDGET = "size=130kB"  # of the tiny CLIP's graphs: some layers have 4 bits, others 8


def write_bundles(root: Path) -> tuple[Path, ...]:
    """Exports them; what was exported there before is taken from the cache in the folder.

    Returns:
        A CLIP in every precision and one whose bits were searched; a ViLT, and one that multiplies
        activations in 8 bits.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, seed in (("data", 21), ("judged", 22)):
        if not (root / name).exists():
            (root / name).mkdir()
            write_tabletop(root / name, seed, 24, size=40)
    for name, make in (("clip", lambda path: make_tiny_clip(path, seed=3)), ("vilt", make_vilt_folder)):
        if not (root / name).exists():
            make(root / name)
    (root / "products.toml").write_text(_PRODUCTS)
    searched = root / "clip-searched"
    api.search(
        root / "clip",
        searched,
        budget=_BUDGET,
        data=root / "judged",
        calibration=root / "data",
        trials=3,
        sampler="tpe",
        gate=_CLIP,
        keep_failing=True,
        cache=root / "cache",
    )
    return (
        _export(root, "clip", "clip-every", EVERY, _CLIP),
        searched,
        _export(root, "vilt", "vilt-every", EVERY, _VILT),
        _export(root, "vilt", "vilt-products", ("tflite-int8",), _VILT, str(root / "products.toml")),
    )


def _export(
    root: Path,
    source: str,
    target: str,
    variants: tuple[str, ...],
    gate: Mapping[str, float],
    recipe: str = "default",
) -> Path:
    api.export(
        root / source,
        root / target,
        calibration=root / "data",
        data=root / "judged",
        variants=variants,
        recipe=recipe,
        gate=gate,
        keep_failing=True,
        cache=root / "cache",
    )
    return root / target


if __name__ == "__main__":
    click.echo("\n".join(map(str, write_bundles(Path(sys.argv[1])))))
