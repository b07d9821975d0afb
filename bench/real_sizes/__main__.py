"""Models of published sizes, exported whole: docs/REAL_SIZES.md.

    python -m bench.real_sizes measure clip-b32,chinese-clip
    python -m bench.real_sizes render

What is recorded is kept; remove a model's folder to measure it again. The weights are drawn, see `models.py`.
"""

from __future__ import annotations

from pathlib import Path

import click

from pocketvl_runtime.console import run_command

_folder = click.Path(path_type=Path)
_work = click.option("--work", type=_folder, default=Path("build/real-sizes"), show_default=True)


@click.group()
def cli() -> None:
    """Export models of published sizes."""


@cli.command()
@click.argument("models", required=False, metavar="[A,B,...]")
@_work
@click.option("--variants", metavar="A,B,...", help="Default: all that the formats have room for.")
@click.option("--photos", type=_folder, default=Path("../shared/data/photos"), show_default=True)
def measure(models: str | None, work: Path, variants: str | None, photos: Path) -> None:
    """Export each model, one after the other; all of them where none is named."""
    from bench.real_sizes.measuring import measure as measure_model
    from bench.real_sizes.measuring import variants_of
    from bench.real_sizes.models import MODELS

    names = list(MODELS) if models is None else models.split(",")
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise click.UsageError(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    for name in names:
        measure_model(
            MODELS[name],
            work / name,
            photos,
            variants_of(MODELS[name]) if variants is None else tuple(variants.split(",")),
            lambda line: click.echo(line, err=True),
        )


@cli.command()
@_work
@click.option("--out", type=_folder, default=Path("docs/REAL_SIZES.md"), show_default=True)
@click.option("--families", type=_folder, default=Path("docs/FAMILIES.md"), show_default=True)
def render(work: Path, out: Path, families: Path) -> None:
    """Write the page of what is recorded, and its summary."""
    from bench.real_sizes.render import write_page

    write_page(work, out, families)
    click.echo(str(out))


if __name__ == "__main__":
    run_command(cli, "python -m bench.real_sizes")
