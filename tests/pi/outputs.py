"""Every output of every variant on a bundle's golden inputs, as an .npz: what two machines are compared by.

    python tests/pi/outputs.py BUNDLE OUT.npz

Runs where there is nothing but the runtime. Outputs of graphs are compared, not scores, which numpy computes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pocketvl_runtime import load
from pocketvl_runtime.backends import Array
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import ImageProcessor, PortKind, TextProcessor
from pocketvl_runtime.text import Tokenizer
from pocketvl_runtime.variant_choice import runnable_variants

Made = dict[PortKind, Array]


def golden_inputs(bundle: Bundle) -> dict[str, list[Made]]:
    """What the processors make of the golden inputs, by processor."""
    golden = bundle.golden()
    made: dict[str, list[Made]] = {}
    for name, processor in bundle.manifest.processors.items():
        if isinstance(processor, ImageProcessor):
            files = [bundle.file(image.file) for image in golden.images]
            made[name] = [{PortKind.PIXELS: load_pixels(file, processor)[None]} for file in files]
        elif isinstance(processor, TextProcessor):
            encoded = Tokenizer(bundle.read(processor.file), processor).encode([t.text for t in golden.texts])
            made[name] = [
                {PortKind.TOKEN_IDS: encoded.ids[n : n + 1], PortKind.ATTENTION_MASK: encoded.mask[n : n + 1]}
                for n in range(len(encoded.ids))
            ]
    return made


def main(root: Path, out: Path) -> None:
    """Writes `VARIANT|COMPONENT.PORT|NUMBER`; of a component that takes both, inputs are paired."""
    bundle = Bundle.open(root)
    made = golden_inputs(bundle)
    arrays = {}
    for variant in runnable_variants(bundle):
        model = load(bundle, variant, threads=1)
        for component in sorted(model.components):
            ports = bundle.manifest.graphs[component].inputs
            sources = {port.source for port in ports if port.source is not None}
            for number in range(max(len(made[source]) for source in sources)):
                given = {source: made[source][number % len(made[source])] for source in sources}
                for port, array in model.run(component, given).items():
                    arrays[f"{variant}|{component}.{port}|{number}"] = array
    np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
