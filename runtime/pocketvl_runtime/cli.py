"""`pocketvl-run`: the device's command line. Results on stdout, everything else on stderr."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import click

from pocketvl_runtime.asking_commands import ask, classify, embed, match, rerank
from pocketvl_runtime.bench_commands import bench, bench_graph
from pocketvl_runtime.command_parts import (
    bundle_argument,
    chosen_variants,
    json_option,
    print_json,
    print_notes,
    say,
    threads_option,
    variants_option,
)
from pocketvl_runtime.console import bar, run_command
from pocketvl_runtime.errors import BackendWarning, PocketVLError
from pocketvl_runtime.version import __version__

if TYPE_CHECKING:
    from pocketvl_runtime.manifest import Manifest


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Ask an image-text or audio-text model that pocketvl exported. BUNDLE is its folder."""


@cli.command()
@bundle_argument
@click.option("--variant", help="Only this one. Default: all.")
@threads_option
@json_option
def info(bundle: str, variant: str | None, threads: int | None, as_json: bool) -> None:
    """Say what a bundle holds, what of it can run here, and with how many threads."""
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.cpus import usable_processors
    from pocketvl_runtime.isa import cpu_name, has_exact_int8, instruction_set
    from pocketvl_runtime.obstacles import task_obstacle
    from pocketvl_runtime.variant_choice import default_threads, runs_here

    opened = Bundle.open(bundle)
    manifest = opened.manifest
    chosen = manifest.variants if variant is None else {variant: opened.variant(variant)}
    variants = {
        name: {
            "status": spec.status.value,
            "size_bytes": opened.size_bytes(name),
            "runs_here": runs_here(opened, name),
        }
        for name, spec in chosen.items()
    }
    machine = {
        "cpu": cpu_name(),
        "isa": instruction_set(),
        "exact_int8": has_exact_int8(),
        "usable_processors": usable_processors(),
    }
    count = threads or default_threads()
    tasks = {
        name: {"kind": task.kind, "obstacle": task_obstacle(manifest, name)}
        for name, task in manifest.tasks.items()
    }
    if as_json:
        head = {
            "format": manifest.version,
            "model": manifest.model,
            "tasks": tasks,
            "processors": manifest.processors,
            "graphs": manifest.graphs,
        }
        print_json({**head, "variants": variants, "machine": machine, "threads": count})
        return
    say(f"{manifest.model.name} ({manifest.model.family}): {', '.join(manifest.tasks)}")
    for line in _described(manifest):
        say(line)
    for name, task in tasks.items():
        if task["obstacle"]:
            say(f"{name} cannot be asked here: this runtime cannot run {task['obstacle']}")
    for name, row in variants.items():
        here = "" if row["runs_here"] else "  (its engine is not installed, or too old)"
        say(f"  {name:<14} {int(row['size_bytes']) / 1e6:7.2f} MB  {row['status']}{here}")
    say(f"here: {machine['cpu']}, {machine['isa']}; {count} thread{'s' if count > 1 else ''}")


@cli.command()
@bundle_argument
@variants_option
@threads_option
@json_option
def selftest(bundle: str, variants: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Check the bundle's files, and that this machine gives the answers it promises."""
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.selftest import selftest as check

    opened = Bundle.open(bundle)
    chosen = chosen_variants(variants, opened)
    with bar("selftest") as tell:
        report = check(opened, chosen, tell, threads)
    print_notes(report.notes)
    if as_json:
        print_json(report)
    else:
        names = ", ".join(report.variants)
        media = [f"{report.images} pictures"] if report.images or not report.sounds else []
        media += [f"{report.sounds} sounds"] if report.sounds else []
        what = ", ".join(
            [f"{report.files} files", *media, f"{report.texts} texts", f"{report.answers} answers"]
        )
        verdict = "all good" if report.passed else f"{len(report.failures)} not good"
        say(f"checked {what}, {names}: {verdict}")
    if not report.passed:
        more = f" (and {len(report.failures) - 3} more)" if len(report.failures) > 3 else ""
        raise PocketVLError("selftest failed: " + "; ".join(report.failures[:3]) + more)


def _described(manifest: Manifest) -> list[str]:
    """Processors and components, a line each."""
    lines = []
    for name, processor in manifest.processors.items():
        match processor.kind:
            case "image":
                lines.append(f"{name}: pictures of {processor.height} x {processor.width}")
            case "tokenizers":
                lines.append(f"{name}: up to {processor.max_length} tokens")
            case "log_mel":
                lines.append(f"{name}: {processor.samples / processor.rate:g} s at {processor.rate} Hz")
    for name, graph in manifest.graphs.items():
        outputs = ", ".join(f"{port.name} {list(port.shape)}" for port in graph.outputs)
        lines.append(f"{name}: gives {outputs}")
    return lines


for each in (match, classify, ask, rerank, embed, bench, bench_graph):
    cli.add_command(each)


def main() -> None:
    """Entry point of `pocketvl-run`."""
    warnings.simplefilter("ignore", BackendWarning)  # what they say is printed as notes, each once
    run_command(cli, "pocketvl-run")
