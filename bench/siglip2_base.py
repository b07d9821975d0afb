"""SigLIP 2 base (google/siglip2-base-patch16-224), random weights: what fp32 and static int8 lose.

Biases are not zero, and eight channels of every LayerNorm in a layer are 20 times as large as the others.
Each component, in both engines, against the float module, on samples that calibration did not see.
The vocabulary of 256,000 takes the text encoder's fp32 graphs to 1.1 GB each.

    python -m bench.siglip2_base --work build/bench/siglip2-base

The graphs stay in the work folder, so that a second call only measures.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SiglipConfig, SiglipModel

from bench.clip_b32 import INPUTS, ROLES, Component, images, make_graphs, randomize_
from bench.timing import machine, open_graph
from pocketvl.families.siglip import ARCHITECTURE, SiglipImageEncoder, SiglipTextEncoder
from pocketvl.tasks.parity import measure_parity
from pocketvl_runtime.manifest import Filter, ImageProcessor, Normalization, ResizeMode

VOCABULARY, LENGTH, SIDE = 256_000, 64, 224
PAD, EOS = 0, 1
GRAPHS = ("folded.onnx", "folded.tflite", "static.onnx", "static.tflite")


def siglip(vocabulary: int) -> SiglipModel:
    """The model, as its family opens it."""
    torch.manual_seed(0)
    config = SiglipConfig(text_config={"vocab_size": vocabulary}, vision_config={"image_size": SIDE})
    model = cast(SiglipModel, ARCHITECTURE.build(config, Path("siglip2"), initialised=True))
    _draw_as_clip_(model)
    randomize_(model, 0, outliers=True)
    return model


def _draw_as_clip_(model: SiglipModel) -> None:
    """Draw the layers' weights as transformers draws CLIP's, so that the two benchmarks compare.

    SigLIP's own initial queries and keys are 5 times as large, and with the outlier channels attention's
    scores so large that a step of the grid decides: the image's centred cosine in int8 is .972 then. Of four
    layers of 192, queries and keys alone cost .012 so, and everything together .001 as drawn here.
    """
    generator = torch.Generator().manual_seed(2)
    for kind in (model.vision_model, model.text_model):
        width, layers = kind.config.hidden_size, kind.config.num_hidden_layers
        deep = (2 * layers) ** -0.5
        scales = {
            "q_proj": deep,
            "k_proj": deep,
            "v_proj": deep,
            "out_proj": 1.0,
            "fc1": 0.5**0.5,
            "fc2": deep,
        }
        for name, parameter in sorted(kind.encoder.named_parameters()):
            scale = scales.get(name.split(".")[-2])
            if scale is not None and name.endswith("weight"):
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(scale * width**-0.5 * drawn)


def texts(count: int, seed: int) -> NDArray[np.int32]:
    """Random tokens of 5 to 40 words, the last token and padding, int32 [count, 64]."""
    chance = np.random.default_rng(seed)
    ids = np.full((count, LENGTH), PAD, np.int32)
    for row in ids:
        length = int(chance.integers(5, 41))
        row[:length] = chance.integers(EOS + 1, VOCABULARY, length)
        row[length] = EOS
    return ids


def component(kind: str, calibration: int, unseen: int) -> Component:
    """The image or the text encoder, and what it is shown."""
    if kind == "text":
        module: torch.nn.Module = SiglipTextEncoder(siglip(VOCABULARY))
        return Component("text-outliers", module.eval(), texts(calibration, 1), texts(unseen, 2))
    normalization = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255)
    size = (SIDE, SIDE)
    preprocess = ImageProcessor.resampled(Filter.BILINEAR, ResizeMode.EXACT, size, None, normalization)
    module = SiglipImageEncoder(siglip(100), preprocess)  # which no text encoder's table changes
    return Component("image-outliers", module.eval(), images(calibration, 1), images(unseen, 2))


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--components", "names", default="image,text", show_default=True)
@click.option("--calibration-samples", default=16, show_default=True)
@click.option("--fidelity-samples", default=16, show_default=True)
def main(work: Path, names: str, calibration_samples: int, fidelity_samples: int) -> None:
    """Measure, print, and write results.json into the work folder."""
    results: dict[str, Any] = {"machine": machine()}
    print(results["machine"])
    for kind in names.split(","):
        shown = component(kind, calibration_samples, fidelity_samples)
        batches = (torch.from_numpy(shown.unseen[k : k + 8]) for k in range(0, fidelity_samples, 8))
        with torch.inference_mode():
            expected = torch.cat([shown.module(batch) for batch in batches]).numpy()
        begin = time.perf_counter()
        results[kind] = {"quantized": make_graphs(shown, work / kind, own_tools=False)}
        print(f"\n{kind}: graphs in {time.perf_counter() - begin:.0f} s", flush=True)
        for name in GRAPHS:
            run = open_graph(work / kind / name, ROLES[kind], 1)
            found = np.concatenate([run({INPUTS[kind]: row[None]}) for row in shown.unseen])
            parity = measure_parity(expected, found)
            results[kind][name] = {
                "max_abs": parity.max_abs,
                "centred_median": parity.centred_cosine_median,
                "centred_min": parity.centred_cosine_min,
                "bytes": (work / kind / name).stat().st_size,
            }
            print(
                f"  {name:<14} max abs {parity.max_abs:.2e}, "
                f"centred cosine {parity.centred_cosine_median:.5f}, least {parity.centred_cosine_min:.5f}, "
                f"{results[kind][name]['bytes'] / 1e6:.1f} MB",
                flush=True,
            )
    results["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {results['peak_gb']:.1f} GB")
    (work / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
