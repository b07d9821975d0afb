"""pocketvl beside OpenVINO + NNCF, litert-quantizer, ONNX Runtime's tools and ExecuTorch: docs/PEERS.md.

    python -m bench.peers prepare      # the models, the data, and an environment for each peer
    python -m bench.peers quantize     # everybody quantizes the same towers, one after the other
    python -m bench.peers measure      # all graphs of a tower in turns; wants an idle machine
    python -m bench.peers render

Each keeps what is done and goes on where it was interrupted; `quantize --again` and `measure` begin anew.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.peers.contenders import PEERS, TOWERS, Method, chosen_methods
from pocketvl_runtime.console import run_command

_MODELS = "clip-b32,siglip2-base"
_folder = click.Path(path_type=Path)
_work = click.option("--work", type=_folder, default=Path("build/peers"), show_default=True)
_models = click.option("--models", default=_MODELS, show_default=True, metavar="A,B,...")
_without_amx = click.option(
    "--without-amx", is_flag=True, help="As on an x86 with VNNI alone: AMX is refused to all processes."
)
_only = click.option("--only", default="", metavar="A,B,...", help="Methods, or peers; default: all.")


def _named(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _methods(text: str) -> tuple[Method, ...]:
    try:
        return chosen_methods(_named(text))
    except ValueError as error:
        raise click.UsageError(f"--only: {error}") from None


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group()
def cli() -> None:
    """Measure pocketvl beside its peers."""


@cli.command()
@_work
@_models
@_only
@click.option(
    "--photos",
    type=_folder,
    default=Path("../shared/data/photos"),
    show_default=True,
    help="Dataset folder; where there is none, tabletop scenes are painted.",
)
@click.option("--vocabulary", type=click.IntRange(512), help="Fewer tokens, for a machine of little memory.")
def prepare(work: Path, models: str, only: str, photos: Path, vocabulary: int | None) -> None:
    """Write the models in float, and install the peers."""
    from bench.peers.models import MODELS
    from bench.peers.models import prepare as prepare_model
    from bench.peers.quantizing import install

    peers = {method.peer for method in _methods(only)}
    install(work, [name for name in PEERS if name in peers], _say)
    for name in _named(models):
        if name not in MODELS:
            raise click.UsageError(f"--models: no model {name}; there are {', '.join(MODELS)}")
        _say(f"{name}: checkpoint, data and float graphs")
        prepare_model(MODELS[name], work / name, photos, vocabulary)


@cli.command()
@_work
@_models
@_only
@click.option("--again", is_flag=True, help="What is done, too, so that all times are of one run.")
def quantize(work: Path, models: str, only: str, again: bool) -> None:
    """Let everybody quantize, one at a time, and judge what came out."""
    from bench.peers.quantizing import judge_own, quantize_own, quantize_peer

    methods = _methods(only)
    for model in _named(models):
        if any(method.is_own for method in methods):
            quantize_own(work, model, again, _say)
        for tower in TOWERS:
            for method in methods:
                (judge_own if method.is_own else quantize_peer)(work, model, method, tower, again, _say)


@cli.command()
@_work
@_models
@_only
@click.option("--threads", default="1,2", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=2, show_default=True, help="In a round.")
@click.option("--any-load", is_flag=True, help="Measure on a machine that others use, too; the page says so.")
@_without_amx
def measure(
    work: Path,
    models: str,
    only: str,
    threads: str,
    rounds: int,
    runs: int,
    any_load: bool,
    without_amx: bool,
) -> None:
    """Time all graphs of each tower in turns."""
    from bench.amx import refuse_amx
    from bench.peers.measuring import time_tower

    if without_amx:
        refuse_amx()
    for model in _named(models):
        for tower in TOWERS:
            for count in _named(threads):
                time_tower(
                    work, model, tower, int(count), _methods(only), rounds, runs, any_load, without_amx, _say
                )


@cli.command()
@_work
@_models
@_without_amx
@click.option("--out", type=_folder, default=Path("docs/PEERS.md"), show_default=True)
@click.option("--readme", type=_folder, default=Path("README.md"), show_default=True)
def render(work: Path, models: str, without_amx: bool, out: Path, readme: Path) -> None:
    """Write the page, its picture, and the README's line."""
    from bench.peers.render import write_page

    write_page(work, _named(models), out, readme, without_amx=without_amx)
    click.echo(str(out))


if __name__ == "__main__":
    run_command(cli, "python -m bench.peers")
