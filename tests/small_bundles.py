"""Exports tiny bundles, for tests where no real model was: a CLIP and a ViLT, float and int8, both engines.

python -m tests.small_bundles
"""

from __future__ import annotations

from pathlib import Path

from pocketvl import api
from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import make_vilt_folder

ROOT = Path("build/small-bundles")
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-fp16", "tflite-int8")


def write_bundles(root: Path = ROOT) -> tuple[Path, ...]:
    """Exports them; those that are there are taken as they are."""
    data = root / "data"
    bundles = []
    for name, make in (("clip", make_tiny_clip), ("vilt", make_vilt_folder)):
        source, bundle = root / f"{name}-checkpoint", root / name
        if not bundle.exists():
            if not data.exists():
                data.mkdir(parents=True)
                write_tabletop(data, 21, 24, size=40)
            if not source.exists():
                make(source)
            api.export(
                source, bundle, calibration=data, variants=VARIANTS, keep_failing=True, cache=root / "cache"
            )
        bundles.append(bundle)
    return tuple(bundles)


if __name__ == "__main__":
    write_bundles()
