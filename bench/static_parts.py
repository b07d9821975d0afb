"""Which part of static int8 costs answers: weights, inputs or outputs, and of which kind of layer.

Computed in torch on the components of CLIP ViT-B/32, each part alone; losses do not add up.

    python -m bench.static_parts [--components image,text] [--samples 128]
"""

from __future__ import annotations

from dataclasses import replace
from enum import Flag, auto

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.clip_b32 import Component, components
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import ComponentSpec
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.calibration import Calibration
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fake import fake_quantize
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.rounding import Rounding
from pocketvl.quantize.sensitivity import embedding_loss
from pocketvl.quantize.settings import QuantizeSettings
from pocketvl_runtime.manifest import Precision

KINDS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class Part(Flag):
    """What of a layer is put on its grid."""

    WEIGHTS = auto()
    INPUT = auto()
    OUTPUT = auto()
    ALL = WEIGHTS | INPUT | OUTPUT


def embed(component: Component, layers: dict[str, QuantizedLayer], part: Part) -> NDArray[np.float64]:
    """The unseen samples' embeddings, with that part of these layers quantized."""
    module, handles = component.module, []
    floats = {name: value.detach().clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for name, layer in layers.items():
            child = module.get_submodule(name)
            if part & Part.WEIGHTS:
                child.get_parameter("weight").copy_(torch.from_numpy(layer.dequantized()))
                bias = layer.float_bias()
                if bias is not None:
                    child.get_parameter("bias").copy_(torch.from_numpy(bias))
            if part & Part.INPUT and layer.input is not None:
                hook = lambda _, args, grid=layer.input: (fake_quantize(args[0], grid),)  # noqa: E731
                handles.append(child.register_forward_pre_hook(hook))
            if part & Part.OUTPUT and layer.output is not None:
                after = lambda _, args, output, grid=layer.output: fake_quantize(output, grid)  # noqa: E731
                handles.append(child.register_forward_hook(after))
        rows = [
            module(torch.from_numpy(component.unseen[k : k + 16])).numpy()
            for k in range(0, len(component.unseen), 16)
        ]
    for handle in handles:
        handle.remove()
    module.load_state_dict(floats)
    return np.concatenate(rows).astype(np.float64)


@click.command()
@click.option("--components", "names", default="image,text", show_default=True)
@click.option("--samples", default=128, show_default=True)
def main(names: str, samples: int) -> None:
    """Measure and print."""
    for component in components(names.split(","), samples, samples):
        if not component.name.endswith("-plain"):
            continue
        module, example = component.module, torch.from_numpy(component.calibration[:1])
        fold_(module, example)
        expected = embed(component, {}, Part.ALL)
        feeds = [row[None] for row in component.calibration]
        seen = calibrate(module, feeds, CalibrationSettings(second_moments=True))
        spec = component_spec(
            module, Precision.INT8, token_tables(module, example), final_linear(module, example)
        )

        layers = dict(_quantized(module, spec, seen, Rounding.GPTQ).layers)
        rows = [("everything", layers, Part.ALL)]
        rows += [(f"all {_word(part)}", layers, part) for part in Part]
        nearest = _quantized(module, spec, seen, Rounding.NEAREST)
        rows += [("weights to nearest", dict(nearest.layers), Part.WEIGHTS)]
        for kind in KINDS:
            some = {name: layer for name, layer in layers.items() if name.endswith(kind)}
            rows += [(f"{kind} {_word(part)}", some, part) for part in Part]
        rest = {name: layer for name, layer in layers.items() if not name.endswith(KINDS)}
        rows += [(f"{', '.join(rest)} {_word(part)}", rest, part) for part in Part]
        print(component.name)
        for what, some, part in rows:
            loss = embedding_loss(expected, embed(component, some, part)).cosine
            print(f"  {what:<50} loses {loss:.5f} of centred cosine", flush=True)


def _quantized(
    module: nn.Module, spec: ComponentSpec, seen: Calibration, rounding: Rounding
) -> QuantizedComponent:
    return quantize_component(module, spec, seen, replace(QuantizeSettings(), rounding=rounding))


def _word(part: Part) -> str:
    return (part.name or "nothing").lower()


if __name__ == "__main__":
    main()
