"""Chinese-CLIP base's text encoder, random weights: what its last layer for one position is worth, and what
LayerNorms that are multiplied back at the sums cost (docs/FASTER_GRAPHS.md).

Three kinds of one network, in int8 and int8dyn, all of a precision and engine in turns in one process: with
its whole last layer, with that layer for the pooled position alone, and so with an outlier channel in every
LayerNorm, equalized. Medians of paired ratios to the second.

    python -m bench.bert_text --work build/bench/bert-text [--runs 60]

The graphs stay in the work folder, so that a second call only measures.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bench.faster_graphs import PRECISIONS, timed, without
from bench.timing import machine, open_graph
from pocketvl.families.chinese_clip import ChineseClipTextEncoder
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.observe.structure import final_linear, token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.equalize import equalize_, equalized_calibration, scalable
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from tests.families.drawn import draw_

WHOLE, POOLED, SCALED = KINDS = ("whole", "pooled", "pooled-scaled")
_LENGTH, _WORDS = 52, 21_128
_SETTINGS = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


def text_encoder(outlier: float) -> ChineseClipTextEncoder:
    """The published size; one channel of each of its layers' LayerNorms is so many times as large."""
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    text = {"vocab_size": _WORDS, "max_position_embeddings": 512, "pad_token_id": 0}
    config = ChineseCLIPConfig(text_config=text, vision_config={"num_hidden_layers": 1}, projection_dim=512)
    torch.manual_seed(0)
    model = ChineseCLIPModel._from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    draw_(model, 0, outlier=outlier, attended=1.0)
    return ChineseClipTextEncoder(model.requires_grad_(False), 0).eval()


def texts(count: int, seed: int) -> NDArray[np.int32]:
    """Ids of 5 to 40 random words, filled up with padding, int32 [count, 52]."""
    chance = np.random.default_rng(seed)
    ids = np.zeros((count, _LENGTH), np.int32)
    for row in ids:
        length = int(chance.integers(5, 41))
        row[:length] = chance.integers(1, _WORDS, length)
    return ids


def make_graphs(kind: str, folder: Path) -> None:
    """Write both precisions of both engines, if they are not there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    module, feeds = text_encoder(8.0 if kind == SCALED else 1.0), [row[None] for row in texts(16, 1)]
    example = torch.from_numpy(feeds[0])
    with without(("pooled-last-layer",) if kind == WHOLE else ()):
        fold_(module, example)
    read = {name for readers in scalable(module, example) for name in readers.linears}
    seen = calibrate(module, feeds, CalibrationSettings(second_moments=True), kept=read)
    if kind == SCALED:
        decided = equalize_(module, example, seen)
        scaled = sum(bool(each.sums) and each.factors is not None for each in decided)
        click.echo(f"{kind}: {scaled} LayerNorms are multiplied back at a sum")
        seen = equalized_calibration(seen, decided)
    export_onnx(module, {"ids": example}, folder / "fp32.onnx")
    export_tflite(module, {"ids": example}, folder / "fp32.tflite")
    tables, final = token_tables(module, example), final_linear(module, example)
    for precision in PRECISIONS:
        specification = component_spec(module, precision, tables, final)
        integers = quantize_component(module, specification, seen, _SETTINGS)
        write_quantized_onnx(folder / "fp32.onnx", integers, folder / f"{precision.value}.onnx")
        write_quantized_tflite(folder / "fp32.tflite", integers, folder / f"{precision.value}.tflite")
    (folder / "done").touch()


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--runs", default=60, show_default=True)
def main(work: Path, runs: int) -> None:
    """Measure and print."""
    print(machine())
    for kind in KINDS:
        make_graphs(kind, work / kind)
    feed = {"ids": texts(1, 2)}
    for threads in (1, 2):
        for file in sorted(path.name for path in (work / POOLED).glob("int8*.*")):
            graphs = {kind: open_graph(work / kind / file, "text_encoder", threads) for kind in KINDS}
            times = timed(graphs, feed, threads, runs)
            for kind, own in times.items():
                least, ratio = np.percentile(own, 10), float(np.median(own / times[POOLED]))
                print(f"{threads} threads {file:<15}{kind:<14} p10 {least:7.2f} ms, {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
