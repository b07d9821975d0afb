"""`pocketvl`: the host's command line. It parses, calls `pocketvl.api` and prints."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketvl import api, data_commands, device_commands
from pocketvl.errors import RecipeError
from pocketvl.launch import is_first, processes, set_up_process
from pocketvl_runtime.console import run_command
from pocketvl_runtime.errors import BackendWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pocketvl.compress.costs import Cost
    from pocketvl.evaluate.report import Report
    from pocketvl.pipelines.export import ExportResult
    from pocketvl.pipelines.inspection import Inspection


def _default_cache() -> Path:
    try:
        return api.default_cache()
    except RecipeError as error:
        raise click.UsageError(f"{error} with --cache (POCKETVL_CACHE)") from None


def _keep_caches_in(folder: Path) -> None:
    """Make libraries that keep something of their own do so there, not in the home or temporary folder."""
    for name, below in (("MPLCONFIGDIR", "matplotlib"), ("TORCHINDUCTOR_CACHE_DIR", "torchinductor")):
        os.environ.setdefault(name, str(folder.absolute() / below))


def _with_caches(context: click.Context, parameter: click.Parameter, cache: Path) -> Path:
    _keep_caches_in(cache)
    return cache


_folder = click.Path(path_type=Path)
_cache = click.option(
    "--cache",
    type=_folder,
    envvar="POCKETVL_CACHE",
    default=_default_cache,
    callback=_with_caches,
    show_default="~/.cache/pocketvl, or $POCKETVL_CACHE",
    help="Where results of stages are kept, so that nothing is done twice.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
_gate = click.option(
    "--gate",
    default="",
    metavar="METRIC=PP,...",
    help="Allowed loss in percentage points, as match_hard=0.5.",
)


_offline = click.option(
    "--offline",
    is_flag=True,
    help="Take hf:ORG/NAME and open_clip:NAME/TAG from the local cache alone, as with HF_HUB_OFFLINE=1.",
)
_calibration = click.option(
    "--calibration",
    type=_folder,
    default=api.CALIBRATION,
    show_default=True,
    help="Dataset folder that the ranges of activations are taken from.",
)
_export_recipe = click.option(
    "--recipe",
    default="default",
    show_default=True,
    metavar="NAME|FILE.toml",
    help="How weights and activations are quantized: default, min-max, qat-int8, qat-int4, or a file.",
)
_keep_failing = click.option(
    "--keep-failing", is_flag=True, help="Put variants that fail the gate in too, as experimental."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pocketvl", message="%(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Make image-text models small, and prove that their answers hold."""
    command = context.invoked_subcommand
    if processes() > 1 and command not in ("compress", "train"):
        raise click.UsageError(f"{command} runs as one process, but {processes()} were started (WORLD_SIZE)")


@cli.command()
@click.argument("source", type=_folder)
@click.option(
    "-o",
    "--out",
    required=True,
    type=_folder,
    help="The bundle's folder; replaced when the new one is whole.",
)
@_calibration
@click.option(
    "--data", type=_folder, help="Dataset folder for task metrics; without it parity alone is measured."
)
@click.option(
    "--variants",
    metavar="A,B,...",
    help="Default: onnx-fp32, onnx-int8, tflite-fp32, tflite-fp16, tflite-int8.",
)
@_export_recipe
@click.option("--train", type=_folder, help="Dataset folder to train on, for recipes that train.")
@_gate
@_keep_failing
@_cache
@_offline
@_json
def export(
    source: Path,
    out: Path,
    calibration: Path,
    data: Path | None,
    variants: str | None,
    recipe: str,
    train: Path | None,
    gate: str,
    keep_failing: bool,
    cache: Path,
    offline: bool,
    as_json: bool,
) -> None:
    """Turn the checkpoint SOURCE into a verified bundle of ONNX and TFLite graphs."""
    from pocketvl.console import stage_lines

    with stage_lines() as progress:
        result = api.export(
            source,
            out,
            calibration=calibration,
            data=data,
            variants=[v.strip() for v in variants.split(",")] if variants else None,
            recipe=recipe,
            train=train,
            gate=gate,
            keep_failing=keep_failing,
            cache=cache,
            offline=offline,
            progress=progress,
        )
    _print_result(result, as_json, keep_failing)


@cli.command()
@click.argument("source", type=_folder)
@click.option(
    "--budget", required=True, metavar="size=1.2MB|latency_ms=8", help="What a variant's graphs may cost."
)
@click.option(
    "--data", required=True, type=_folder, help="Dataset folder: one part chooses, the rest judges."
)
@click.option("-o", "--out", required=True, type=_folder, help="The bundle's folder.")
@_calibration
@click.option(
    "--engine",
    type=click.Choice(["tflite", "onnx"]),
    default="tflite",
    show_default=True,
    help="Whose files or latency are limited; the bundle holds both.",
)
@click.option("--trials", type=click.IntRange(min=1), default=60, show_default=True, help="Choices to try.")
@click.option(
    "--sampler",
    type=click.Choice(["gp", "tpe"]),
    default="gp",
    show_default=True,
    help="What proposes choices: a Gaussian process, or a tree-structured Parzen estimator.",
)
@click.option(
    "--widths",
    default="4,8",
    show_default=True,
    metavar="BITS,...",
    help="Bits to choose from: 2 (--engine onnx alone), 4, 8, 32 (float).",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sampler.")
@_export_recipe
@click.option(
    "--work",
    type=_folder,
    help="Where the study is kept, for going on, or for several processes at once; default: OUT.search.",
)
@_gate
@_keep_failing
@_cache
@_offline
@_json
def search(
    source: Path,
    budget: str,
    data: Path,
    out: Path,
    calibration: Path,
    engine: str,
    trials: int,
    sampler: str,
    widths: str,
    seed: int,
    recipe: str,
    work: Path | None,
    gate: str,
    keep_failing: bool,
    cache: Path,
    offline: bool,
    as_json: bool,
) -> None:
    """Search bits per layer of SOURCE under a budget, and export what was found.

    Interrupted, the same command goes on with the study; run twice at once, both take part in it.
    """
    from pocketvl.console import stage_lines, trial_lines

    with stage_lines() as progress:
        result = api.search(
            source,
            out,
            budget=budget,
            data=data,
            calibration=calibration,
            engine=engine,
            trials=trials,
            sampler=sampler,
            widths=_bits(widths),
            seed=seed,
            recipe=recipe,
            work=work,
            gate=gate,
            keep_failing=keep_failing,
            cache=cache,
            offline=offline,
            progress=progress,
            trial_progress=trial_lines,
        )
    _print_result(result, as_json, keep_failing)


def _bits(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise click.UsageError(f"--widths: {text!r} is not of the form 4,8") from None


@cli.command()
@click.argument("source", type=_folder)
@click.option(
    "--recipe",
    required=True,
    metavar="NAME|FILE.toml",
    help="What is done, step by step: gentle, balanced, tiny, cross-modal (of a ViLT), or a .toml file.",
)
@click.option("--data", required=True, type=_folder, help="Dataset folder to learn from.")
@click.option(
    "-o",
    "--out",
    type=_folder,
    help="The smaller checkpoint's folder; replaced when the new one is whole.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done, how long it takes here, and how much memory.",
)
@_cache
@_offline
@_json
def compress(
    source: Path,
    recipe: str,
    data: Path,
    out: Path | None,
    dry_run: bool,
    cache: Path,
    offline: bool,
    as_json: bool,
) -> None:
    """Make the checkpoint SOURCE smaller: prune, factorise and distil it as a recipe says.

    Interrupted, the same command goes on where the training last saved its state. Started by torchrun or
    accelerate launch, its processes train together.
    """
    from pocketvl.console import print_forecast, stage_lines

    if dry_run:
        found = api.forecast(source, recipe=recipe, data=data, cache=cache, offline=offline)
        if as_json:
            click.echo(json.dumps(found.to_json()))
        else:
            print_forecast(found)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'; --dry-run needs none.")
    with stage_lines() as progress:
        result = api.compress(
            source, out, recipe=recipe, data=data, cache=cache, offline=offline, progress=progress
        )
    if not is_first():
        return
    if as_json:
        click.echo(json.dumps({"before": vars(result.before), "after": vars(result.after)}))
        return
    for name, what in (
        ("parameters", "parameters"),
        ("macs", "multiply-adds"),
        ("int8_bytes", "bytes in int8"),
    ):
        before, after = (getattr(each, name) for each in (result.before, result.after))
        click.echo(f"{what:<14} {before:>13,} -> {after:>13,}  ({after / before:.0%})")
    click.echo(f"checkpoint: {out}")


@cli.command()
@click.argument("source", type=_folder)
@_offline
@_json
def inspect(source: Path, offline: bool, as_json: bool) -> None:
    """Show the components of the checkpoint SOURCE, their ports and costs, and what can be done with it."""
    found = api.inspect(source, offline=offline)
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    for line in _inspection_lines(found):
        click.echo(line)


def _inspection_lines(found: Inspection) -> Iterator[str]:
    yield f"{found.name}: {found.family}, weights in {found.dtype}"
    if found.reranker is not None:
        yield f"{found.reranker.component}: a second head, which reranks what the others match"
    for name, component in found.components.items():
        layers = ", ".join(f"{count} layers" for count in component.layers.values())
        yield f"{name}: {_cost_line(component.cost)}{layers and f', {layers}'}"
        for direction, ports in (("takes", component.inputs), ("gives", component.outputs)):
            for port in ports:
                source = f" from {port.source}" if port.source else ""
                shape = "x".join(map(str, port.shape))
                yield f"  {direction} {port.name} {port.dtype.value} {shape} ({port.kind.value}{source})"
        can = [kind for kind, obstacle in component.methods.items() if obstacle is None]
        yield f"  compress: {', '.join(can) or 'nothing'}"
        for why in dict.fromkeys(each for each in component.methods.values() if each is not None):
            cannot = [kind for kind, obstacle in component.methods.items() if obstacle == why]
            yield f"  not {', '.join(cannot)}: it {why}"
    yield f"all: {_cost_line(found.total)}"
    yield f"export: {', '.join(found.variants)}"
    yield from (f"note: {note}" for note in found.notes)


def _cost_line(cost: Cost) -> str:
    return (
        f"{cost.parameters:,} parameters, {cost.macs:,} multiply-adds, {cost.int8_bytes / 1e6:.2f} MB in int8"
    )


@cli.command()
@click.argument("bundle", type=_folder)
@click.option(
    "--source", required=True, type=_folder, help="The checkpoint that the bundle was exported from."
)
@click.option(
    "--data", required=True, type=_folder, help="Dataset folder that neither training nor calibration saw."
)
@_gate
@_offline
@_json
def verify(bundle: Path, source: Path, data: Path, gate: str, offline: bool, as_json: bool) -> None:
    """Measure BUNDLE against its checkpoint again; fails where a variant lost more than it may."""
    from pocketvl.console import stage_lines
    from pocketvl.errors import GateError

    with stage_lines() as progress, tempfile.TemporaryDirectory(prefix="pocketvl-verify-") as scratch:
        _keep_caches_in(Path(scratch))
        report = api.verify(bundle, source, data, gate=gate, offline=offline, progress=progress)
    _print_report(report, as_json)
    if not as_json:
        click.echo(f"report: {bundle / 'report.html'}")
    if report.failures:
        raise GateError(report.failures)


@cli.command()
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=_folder, help="The checkpoint folder to write.")
@click.option(
    "--work", type=_folder, help="Where scenes and the training's state are kept; default: OUT.work."
)
@click.option(
    "--from",
    "start",
    type=_folder,
    help="A checkpoint to start from: a CLIP of fewer layers, a ViLT of the same shape.",
)
def train(recipe: str, out: Path, work: Path | None, start: Path | None) -> None:
    """Train what RECIPE says (a shipped name, or a .toml file).

    Interrupted, the same command goes on. Started by torchrun or accelerate launch, its processes train
    together.
    """
    from pocketvl.console import bar
    from pocketvl.tabletop import train as pipeline

    folder = None if start is None else api.fetch_checkpoint(start)
    with bar() as progress:
        pipeline.train(recipe, out, work or out.with_name(out.name + ".work"), progress, folder)
    if is_first():
        click.echo(str(out))


for each in (device_commands.profile, device_commands.choose, device_commands.report):
    cli.add_command(each)


@cli.group()
def data() -> None:
    """Make dataset folders."""


data.add_command(data_commands.import_)


@data.command()
@click.option("--seed", required=True, type=click.IntRange(min=0), help="Which world.")
@click.option("--count", required=True, type=click.IntRange(min=1), help="How many scenes.")
@click.option("-o", "--out", required=True, type=_folder, help="The dataset folder to write.")
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True, help="Side in pixels.")
@_cache
def tabletop(seed: int, count: int, out: Path, size: int, cache: Path) -> None:
    """Paint scenes of the procedural tabletop world, with captions, hard negatives and questions."""
    from pocketvl.console import stage_lines
    from pocketvl.tabletop.painting import PaintTabletop, make_tabletop

    with stage_lines() as progress:
        make_tabletop(PaintTabletop(seed, count, size), out, cache, progress)
    click.echo(str(out))


def _print_result(result: ExportResult, as_json: bool, keep_failing: bool) -> None:
    from pocketvl.errors import GateError

    _print_report(result.report, as_json)
    if not as_json:
        click.echo(f"bundle: {result.bundle or 'none, for no variant passed'}")
        click.echo(f"report: {result.page}")
    if result.failures and not keep_failing:
        raise GateError(result.failures)


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        from pocketvl.evaluate.report_json import report_to_json

        click.echo(json.dumps(json.loads(report_to_json(report)), ensure_ascii=False))
        return
    for line in _table(report):
        click.echo(line)
    for note in report.notes:
        click.echo(f"note: {note}")


def _table(report: Report) -> list[str]:
    reference = "  ".join(f"{m.value} {100 * r.value:.1f} %" for m, r in report.reference.items())
    lines = [f"torch fp32: {reference}" if reference else "no task data: parity alone was measured"]
    for variant in report.ordered_variants():
        drops = {metric.value: each.drop_pp or 0.0 for metric, each in variant.metrics.items()}
        losses = "  ".join(f"{name} {0.0 - drop:+.2f} pp" for name, drop in drops.items())
        centred = min(p.centred_cosine_median for p in variant.parity.values())
        verdict = "passed" if variant.gate is not None and variant.gate.passed else "FAILED"
        lines.append(
            f"{variant.name:<13} {variant.size_bytes / 1e6:7.2f} MB  {losses}  "
            f"centred cosine {centred:.5f}  {verdict}"
        )
    return lines


def main() -> None:
    """Entry point of `pocketvl`."""
    set_up_process()
    warnings.simplefilter("ignore", BackendWarning)  # reports say the same, where it belongs
    if "HF_HUB_OFFLINE" not in os.environ:  # nothing but `api.fetch_checkpoint` asks the hub for anything
        os.environ.update({"HF_HUB_OFFLINE": "1", "POCKETVL_FETCHES": "1"})
    run_command(cli, "pocketvl")
