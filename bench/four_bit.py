"""4-bit weights side by side: to the nearest integer, by GPTQ, and trained; each judged in its shipped files.

    python -m bench.four_bit --data DIR --train DIR --work build/bench/four-bit

`--data` is unseen; `--train` is what quantization-aware training learns from. Both are dataset folders, as
`pocketvl data tabletop` makes them.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from pocketvl.console import stage_lines
from pocketvl.pipelines.export import ExportSettings, export

HERE = Path(__file__).parent
RECIPES = {
    "nearest": str(HERE / "recipes" / "int4-nearest.toml"),
    "gptq": str(HERE / "recipes" / "int4-gptq.toml"),
    "qat": "qat-int4",
}
VARIANTS = ("onnx-int4", "tflite-int4")


@click.command()
@click.option("--source", type=click.Path(path_type=Path), default=Path("checkpoints/tabletop-clip"))
@click.option("--calibration", type=click.Path(path_type=Path), default=Path("calibration_data"))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--train", type=click.Path(path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), envvar="POCKETVL_CACHE", required=True)
def main(source: Path, calibration: Path, data: Path, train: Path, work: Path, cache: Path) -> None:
    """Export with each recipe, and print what each loses."""
    rows = []
    for name, recipe in RECIPES.items():
        settings = ExportSettings(
            source, work / name, calibration, data, VARIANTS, keep_failing=True, recipe=recipe, train=train
        )
        with stage_lines() as progress:
            report = export(settings, cache, progress).report
        for variant in report.ordered_variants():
            losses = {
                metric.value: (each.drop_pp, each.drop_ci95, each.n)
                for metric, each in variant.metrics.items()
            }
            cosines = {port: each.centred_cosine_median for port, each in variant.parity.items()}
            rows.append(
                {"recipe": name, "variant": variant.name, "bytes": variant.size_bytes, **losses, **cosines}
            )
            print(json.dumps(rows[-1]), flush=True)
    (work / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
