"""Attention between text and picture in shipped files: products in int8, and what pruned blocks buy in time.

    python -m bench.cross_modal --data DIR --work build/bench/cross-modal [--pruned DIR ...]

`--data` is a dataset folder of questions that nobody trained on; `--pruned` are checkpoints that lost
cross-modal blocks. Each is exported in fp32 and int8, answers all questions in both engines, and is timed in
turns with the others on one thread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.timing import interleaved, machine, open_graph
from pocketvl import api
from pocketvl.console import stage_lines
from pocketvl.families.layers.segments import Blocks

HERE = Path(__file__).parent
FUSION = "fusion"
VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
RUNS = 200


@click.command()
@click.option("--source", type=click.Path(path_type=Path), default=Path("checkpoints/tabletop-vilt"))
@click.option("--pruned", type=click.Path(path_type=Path), multiple=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), envvar="POCKETVL_CACHE", required=True)
def main(source: Path, pruned: tuple[Path, ...], data: Path, work: Path, cache: Path) -> None:
    """Export, measure, time and print a table."""
    asked = {"none": (source, "default"), **{path.name: (path, "default") for path in pruned}}
    asked |= {
        blocks.value: (source, str(HERE / "recipes" / f"products-{blocks.value}.toml")) for blocks in Blocks
    }
    rows, graphs = [], {}
    for name, (checkpoint, recipe) in asked.items():
        macs = api.inspect(checkpoint).total.macs
        with stage_lines() as progress:
            result = api.export(
                checkpoint,
                work / name,
                data=data,
                recipe=recipe,
                variants=VARIANTS,
                keep_failing=True,
                cache=cache,
                progress=progress,
            )
        for variant in result.report.ordered_variants():
            (metric,) = variant.metrics.values()
            key = f"{name} {variant.name}"
            graphs[key] = open_graph(work / name / _file(work / name, variant.name), FUSION, 1)
            rows.append(
                {
                    "of": name,
                    "variant": variant.name,
                    "macs": macs,
                    "bytes": variant.size_bytes,
                    "right": metric.value,
                    "n": metric.n,
                    "drop_pp": metric.drop_pp,
                    "drop_ci95": metric.drop_ci95,
                }
            )
    rng = np.random.default_rng(0)
    feed: dict[str, NDArray[Any]] = {
        port.name: rng.integers(4, 250, [int(side) for side in port.shape]).astype(port.dtype.value)
        for port in api.inspect(source).components[FUSION].inputs
    }
    times = interleaved(graphs, feed, RUNS)
    print(machine())
    for row in rows:
        own, plain = times[f"{row['of']} {row['variant']}"], times[f"none {row['variant']}"]
        p10 = float(np.percentile(own, 10))
        row |= {"ms_p10": p10, "ms_median": float(np.median(own))}
        row["ratio_p10"] = p10 / float(np.percentile(plain, 10))
        print(json.dumps(row))
    (work / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _file(bundle: Path, variant: str) -> str:
    """The graph of a variant's one component."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    file: str = manifest["variants"][variant]["files"][FUSION]["file"]
    return file


if __name__ == "__main__":
    main()
