"""`pocketvl-run`: the device's command line. Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pocketvl_runtime.console import bar, run_command
from pocketvl_runtime.errors import InputError, PocketVLError

Command = TypeVar("Command", bound=Callable[..., Any])

_bundle = click.argument("bundle", type=click.Path(path_type=Path))
_variant = click.option(
    "--variant", help="Which variant; default: the smallest accepted one that can run here."
)
_threads = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads for one inference (default: up to 4)."
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
_BAR_WIDTH = 24


def _asking(command: Command) -> Command:
    return _bundle(_variant(_threads(_json(command))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pocketvl-runtime", message="%(version)s")
def cli() -> None:
    """Ask an image-text model that pocketvl exported. BUNDLE is its folder."""


@cli.command()
@_bundle
@_json
def info(bundle: Path, as_json: bool) -> None:
    """Say what a bundle holds and what of it can run here."""
    from pocketvl_runtime.backends import is_installed
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.isa import cpu_name, has_exact_int8, instruction_set

    opened = Bundle.open(bundle)
    manifest = opened.manifest
    variants = {
        name: {
            "status": spec.status.value,
            "size_bytes": opened.size_bytes(name),
            "runs_here": is_installed(spec.engine),
        }
        for name, spec in manifest.variants.items()
    }
    machine = {"cpu": cpu_name(), "isa": instruction_set(), "exact_int8": has_exact_int8()}
    if as_json:
        head = {
            "name": manifest.name,
            "family": manifest.family,
            "tasks": manifest.tasks,
            "space": manifest.space,
        }
        _print_json(
            {**head, "embedding_dim": manifest.embedding_dim, "variants": variants, "machine": machine}
        )
        return
    spec, text = manifest.preprocess, manifest.tokenizer
    click.echo(f"{manifest.name} ({manifest.family}): {', '.join(manifest.tasks)}")
    click.echo(
        f"picture {spec.height} x {spec.width}, text up to {text.length} tokens, "
        f"{manifest.embedding_dim} values"
    )
    for name, row in variants.items():
        here = "" if row["runs_here"] else "  (its engine is not installed)"
        click.echo(f"  {name:<14} {int(row['size_bytes']) / 1e6:7.2f} MB  {row['status']}{here}")
    click.echo(f"here: {machine['cpu']}, {machine['isa']}")


@cli.command()
@_asking
@click.option("--image", required=True, type=click.Path(path_type=Path), help="A picture.")
@click.option("--text", "texts", multiple=True, required=True, help="A text; give several.")
def match(
    bundle: Path, variant: str | None, threads: int | None, as_json: bool, image: Path, texts: tuple[str, ...]
) -> None:
    """Say how well each TEXT fits the picture."""
    from pocketvl_runtime.text import check_texts

    check_texts(texts)
    report = _load(bundle, variant, threads).match(image, texts)
    if as_json:
        _print_json(report)
    else:
        _print_scores(report.variant, [(r.text, r.similarity, r.probability) for r in report.results])


@cli.command()
@_asking
@click.option("--image", required=True, type=click.Path(path_type=Path), help="A picture.")
@click.option("--label", "labels", multiple=True, help="A label; give several. Default: the bundle's own.")
def classify(
    bundle: Path,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    image: Path,
    labels: tuple[str, ...],
) -> None:
    """Say which LABEL fits the picture."""
    report = _load(bundle, variant, threads).classify(image, labels or None)
    if as_json:
        _print_json(report)
    else:
        _print_scores(report.variant, [(r.label, r.similarity, r.probability) for r in report.results])


@cli.command()
@_asking
@click.option(
    "--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture; may be repeated."
)
@click.option("--text", "texts", multiple=True, help="A text; may be repeated.")
def embed(
    bundle: Path,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    images: tuple[Path, ...],
    texts: tuple[str, ...],
) -> None:
    """Print embeddings: one JSON object a line, or with --json one for all."""
    if not images and not texts:
        raise click.UsageError("give at least one --image or --text")
    model = _load(bundle, variant, threads)
    rows: list[dict[str, Any]] = []
    with bar("embedding") as tell:
        for done, image in enumerate(images, start=1):
            rows.append({"image": str(image), "embedding": model.embed_image(image).tolist()})
            tell(done, len(images), "embedding")
    if texts:
        vectors = model.embed_text(texts).tolist()
        rows += [{"text": t, "embedding": v} for t, v in zip(texts, vectors, strict=True)]
    if as_json:
        _print_json({"variant": model.variant, "space": model.manifest.space, "results": rows})
    else:
        for row in rows:
            _print_json(row)


@cli.command()
@_bundle
@click.option("--variant", "variants", multiple=True, help="Which; default: all that can run here.")
@_json
def selftest(bundle: Path, variants: tuple[str, ...], as_json: bool) -> None:
    """Check the bundle's files, and that this machine gives the answers it promises."""
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.model import runnable_variants
    from pocketvl_runtime.selftest import selftest as check

    opened = Bundle.open(bundle)
    chosen = _chosen(variants, runnable_variants(opened))
    with bar("selftest") as tell:
        report = check(opened, chosen, tell)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        _print_json(report)
    else:
        names = ", ".join(report.variants)
        what = f"{report.files} files, {report.images} pictures, {report.texts} texts, {names}"
        click.echo(f"checked {what}: {'all good' if report.passed else f'{len(report.failures)} failures'}")
    if not report.passed:
        more = f" (and {len(report.failures) - 3} more)" if len(report.failures) > 3 else ""
        raise PocketVLError("selftest failed: " + "; ".join(report.failures[:3]) + more)


@cli.command()
@_bundle
@click.option("--variant", "variants", multiple=True, help="Which; default: all that can run here.")
@click.option("--threads", multiple=True, type=click.IntRange(min=1), default=(1, 2), show_default=True)
@click.option(
    "--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Counted runs of each."
)
@click.option("--image", type=click.Path(path_type=Path), help="A picture; default: the golden pack's first.")
@click.option("--text", help="A text; default: the golden pack's first.")
@_json
def bench(
    bundle: Path,
    variants: tuple[str, ...],
    threads: tuple[int, ...],
    runs: int,
    image: Path | None,
    text: str | None,
    as_json: bool,
) -> None:
    """Time variants against each other, interleaved: median and tenth percentile."""
    from pocketvl_runtime.bench import bench as measure
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.model import runnable_variants

    opened = Bundle.open(bundle)
    with bar("timing") as tell:
        report = measure(
            opened, _chosen(variants, runnable_variants(opened)), threads, runs, image, text, tell
        )
    for note in dict.fromkeys(note for v in report.variants.values() for note in v.notes):
        click.echo(f"note: {note}", err=True)
    if as_json:
        _print_json(report)
        return
    click.echo(
        f"{report.machine.cpu}, {report.machine.isa}; median (p10) ms of {report.runs} interleaved runs"
    )
    for name, measured in report.variants.items():
        for count in threads:
            cells = [
                f"{s} {v[str(count)].median:.2f} ({v[str(count)].p10:.2f})"
                for s, v in measured.latency_ms.items()
            ]
            click.echo(f"  {name:<14} {count} thread{'s' if count > 1 else ' '}  {'  '.join(cells)}")


def _load(bundle: Path, variant: str | None, threads: int | None) -> Any:
    from pocketvl_runtime.model import load

    model = load(bundle, variant, threads)
    for note in model.notes:
        click.echo(f"note: {note}", err=True)
    return model


def _chosen(asked: Sequence[str], runnable: Sequence[str]) -> Sequence[str]:
    if not asked and not runnable:
        raise InputError("no engine is installed: pip install onnxruntime or ai-edge-litert")
    return asked or runnable


def _print_json(value: object) -> None:
    from pocketvl_runtime.schema import encode

    click.echo(json.dumps(encode(value)))


def _print_scores(variant: str, rows: list[tuple[str, float, float]]) -> None:
    width = max(len(name) for name, _, _ in rows)
    for name, similarity, probability in sorted(rows, key=lambda row: -row[2]):
        drawn = "#" * round(_BAR_WIDTH * probability)
        click.echo(f"{name:<{width}}  {probability:6.1%}  {similarity:+.3f}  {drawn}")
    click.echo(f"({variant})", err=True)


def main() -> None:
    """Entry point of `pocketvl-run`."""
    run_command(cli, "pocketvl-run")
