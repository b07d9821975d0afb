"""`pocketvl-run`: the device's command line. Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pocketvl_runtime.console import bar, printable, run_command, say_line
from pocketvl_runtime.errors import BackendWarning, PocketVLError
from pocketvl_runtime.isa import MAX_THREADS
from pocketvl_runtime.version import __version__

if TYPE_CHECKING:
    from pocketvl_runtime.bench_result import BenchResult
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.manifest import Manifest
    from pocketvl_runtime.model import Model

Command = TypeVar("Command", bound=Callable[..., Any])

_count = click.IntRange(1, MAX_THREADS)
_bundle = click.argument("bundle", type=click.Path())  # as text: Path("") would be the working directory
_variant = click.option(
    "--variant",
    help="Which variant. Default: of the accepted ones that can run here, int8, then fp16, then fp32, "
    "then others; TFLite before ONNX. One that only a stand-in for its engine runs comes last.",
)
_variants = click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Which variant; may be repeated. Default: all that can run here.",
)
_threads = click.option(
    "--threads",
    type=_count,
    help="Threads for one inference. Default: as many as there are processors to use, at most 4.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
_image = click.option("--image", type=click.Path(), help="A picture.")
_audio = click.option(
    "--audio", type=click.Path(), help="A WAV file, in place of --image, where the model listens."
)
_progress_lines = click.option(  # for programs that show progress themselves
    "--progress-lines", is_flag=True, hidden=True
)
_BAR_WIDTH = 24
_MOST_SECONDS = 86_400.0


def _asking(command: Command) -> Command:
    return _bundle(_variant(_threads(_json(command))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Ask an image-text or audio-text model that pocketvl exported. BUNDLE is its folder."""


@cli.command()
@_bundle
@click.option("--variant", help="Only this one. Default: all.")
@_threads
@_json
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
        _print_json({**head, "variants": variants, "machine": machine, "threads": count})
        return
    _say(f"{manifest.model.name} ({manifest.model.family}): {', '.join(manifest.tasks)}")
    for line in _described(manifest):
        _say(line)
    for name, task in tasks.items():
        if task["obstacle"]:
            _say(f"{name} cannot be asked here: this runtime cannot run {task['obstacle']}")
    for name, row in variants.items():
        here = "" if row["runs_here"] else "  (its engine is not installed, or too old)"
        _say(f"  {name:<14} {int(row['size_bytes']) / 1e6:7.2f} MB  {row['status']}{here}")
    _say(f"here: {machine['cpu']}, {machine['isa']}; {count} thread{'s' if count > 1 else ''}")


@cli.command()
@_asking
@_image
@_audio
@click.option("--text", "texts", multiple=True, required=True, help="A text; give several.")
def match(
    bundle: str,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    image: str | None,
    audio: str | None,
    texts: tuple[str, ...],
) -> None:
    """Say how well each TEXT fits the picture or the sound."""
    from pocketvl_runtime.text import check_texts

    media = _one_of(image, audio)
    check_texts(texts)
    model = _load(bundle, variant, threads)
    _check_media(model, audio)
    report = model.match(media, texts)
    if as_json:
        _print_json(report)
    else:
        _print_scores(report.variant, [(r.text, r.similarity, r.probability) for r in report.results])


@cli.command()
@_asking
@_image
@_audio
@click.option("--label", "labels", multiple=True, help="A label; give several. Default: the bundle's own.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    help="A text with {label} in it; of several, a label is the mean. Default: the bundle's own.",
)
@click.option("--templates", "templates_file", type=click.Path(), help="A file with one of those a line.")
def classify(
    bundle: str,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    image: str | None,
    audio: str | None,
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    templates_file: str | None,
) -> None:
    """Say which LABEL fits the picture or the sound."""
    from pocketvl_runtime.prompts import check_templates, read_templates

    media = _one_of(image, audio)
    if templates_file is not None:
        templates = (*templates, *read_templates(Path(templates_file)))
    if templates:
        check_templates(templates)
    model = _load(bundle, variant, threads)
    _check_media(model, audio)
    report = model.classify(media, labels or None, templates or None)
    if as_json:
        _print_json(report)
    else:
        _print_scores(report.variant, [(r.label, r.similarity, r.probability) for r in report.results])


@cli.command()
@_asking
@click.option("--image", required=True, type=click.Path(), help="A picture.")
@click.option("--question", "questions", multiple=True, required=True, help="A question; give several.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many answers to each."
)
def ask(
    bundle: str,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    image: str,
    questions: tuple[str, ...],
    top: int,
) -> None:
    """Answer each QUESTION about the picture."""
    from pocketvl_runtime.text import check_texts

    check_texts(questions, "question")
    report = _load(bundle, variant, threads).ask(image, questions, top)
    if as_json:
        _print_json(report)
        return
    for result in report.results:
        _say(result.question)
        _print_rows([(each.answer, each.probability, "") for each in result.answers])
    click.echo(f"({report.variant})", err=True)


@cli.command()
@_asking
@_image
@_audio
@click.option("--text", "texts", multiple=True, required=True, help="A text; give several.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Read only so many texts together with it, those that match finds most similar. Default: all.",
)
def rerank(
    bundle: str,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    image: str | None,
    audio: str | None,
    texts: tuple[str, ...],
    top: int | None,
) -> None:
    """Say how likely each TEXT fits the picture or the sound, read together with it.

    Slower than match for many texts, and better at telling similar ones apart.
    """
    from pocketvl_runtime.text import check_texts

    media = _one_of(image, audio)
    check_texts(texts)
    model = _load(bundle, variant, threads)
    _check_media(model, audio)
    report = model.rerank(media, texts, top)
    if as_json:
        _print_json(report)
        return
    _print_rows(
        [
            (r.text, r.probability, "" if r.similarity is None else f"  {r.similarity:+.3f}")
            for r in report.results
        ]
    )
    click.echo(f"({report.variant})", err=True)


@cli.command()
@_asking
@click.option("--image", "images", multiple=True, type=click.Path(), help="A picture; may be repeated.")
@click.option("--audio", "sounds", multiple=True, type=click.Path(), help="A WAV file; may be repeated.")
@click.option("--text", "texts", multiple=True, help="A text; may be repeated.")
def embed(
    bundle: str,
    variant: str | None,
    threads: int | None,
    as_json: bool,
    images: tuple[str, ...],
    sounds: tuple[str, ...],
    texts: tuple[str, ...],
) -> None:
    """Print embeddings: one JSON object a line, or with --json one for all."""
    if not images and not sounds and not texts:
        raise click.UsageError("give at least one --image, --audio or --text")
    model = _load(bundle, variant, threads)
    rows: list[dict[str, Any]] = []
    with bar("embedding") as tell:
        for kind, paths, embed_one in (
            ("image", images, model.embed_image),
            ("audio", sounds, model.embed_audio),
        ):
            for done, path in enumerate(paths, start=1):
                rows.append({kind: path, "embedding": embed_one(path).tolist()})
                tell(done, len(paths), "embedding")
    if texts:
        vectors = model.embed_text(texts).tolist()
        rows += [{"text": t, "embedding": v} for t, v in zip(texts, vectors, strict=True)]
    if as_json:
        _print_json({"variant": model.variant, "space": model.space, "results": rows})
    else:
        for row in rows:
            _print_json(row)


@cli.command()
@_bundle
@_variants
@_threads
@_json
def selftest(bundle: str, variants: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Check the bundle's files, and that this machine gives the answers it promises."""
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.selftest import selftest as check

    opened = Bundle.open(bundle)
    chosen = _chosen(variants, opened)
    with bar("selftest") as tell:
        report = check(opened, chosen, tell, threads)
    _print_notes(report.notes)
    if as_json:
        _print_json(report)
    else:
        names = ", ".join(report.variants)
        media = [f"{report.images} pictures"] if report.images or not report.sounds else []
        media += [f"{report.sounds} sounds"] if report.sounds else []
        what = ", ".join(
            [f"{report.files} files", *media, f"{report.texts} texts", f"{report.answers} answers"]
        )
        verdict = "all good" if report.passed else f"{len(report.failures)} not good"
        _say(f"checked {what}, {names}: {verdict}")
    if not report.passed:
        more = f" (and {len(report.failures) - 3} more)" if len(report.failures) > 3 else ""
        raise PocketVLError("selftest failed: " + "; ".join(report.failures[:3]) + more)


@cli.command()
@_bundle
@_variants
@click.option(
    "--threads",
    multiple=True,
    type=_count,
    help="Threads for one inference; may be repeated. Default: 1, and as many as there are processors to "
    "use, at most 4.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Counted runs of each."
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Runs of each before those."
)
@click.option("--image", type=click.Path(), help="A picture; default: the golden pack's first.")
@click.option("--audio", type=click.Path(), help="A WAV file, of a model that listens; default: likewise.")
@click.option("--text", help="A text; default: the golden pack's first.")
@click.option("--samples", is_flag=True, help="With --json: every counted run too, not only percentiles.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, max=_MOST_SECONDS),
    default=0.0,
    help="Then each variant answers for so many seconds without a pause, at the largest number of threads.",
)
@click.option("--ops", is_flag=True, help="With --json: then tell which operators the graphs' time goes to.")
@_progress_lines
@_json
def bench(
    bundle: str,
    variants: tuple[str, ...],
    threads: tuple[int, ...],
    runs: int,
    warmup: int,
    image: str | None,
    audio: str | None,
    text: str | None,
    samples: bool,
    duration: float,
    ops: bool,
    progress_lines: bool,
    as_json: bool,
) -> None:
    """Time variants against each other, interleaved. docs/BENCH.md describes the JSON."""
    from pocketvl_runtime.bench import bench as measure
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.variant_choice import default_threads

    opened = Bundle.open(bundle)
    chosen = _chosen(variants, opened)
    with bar("timing", as_lines=progress_lines) as tell:
        result = measure(
            opened,
            chosen,
            threads or (1, default_threads()),
            runs,
            image,
            text,
            tell,
            warmup_runs=warmup,
            keep_samples=samples,
            duration_s=duration,
            fresh=True,
            ops=ops,
            audio=audio,
        )
    _print_notes(note for measured in result.variants.values() for note in measured.notes)
    for doubt in result.conditions.warnings if result.conditions else ():
        say_line("warning", doubt)
    if as_json:
        _print_json(result)
    else:
        _print_bench(result)


@cli.command("bench-graph")
@click.argument("graph", type=click.Path())
@click.option(
    "--threads", multiple=True, type=_count, help="Threads; may be repeated. Default: as for bench."
)
@click.option("--runs", type=click.IntRange(min=1), default=10, show_default=True, help="Counted runs.")
@_progress_lines
def bench_graph(graph: str, threads: tuple[int, ...], runs: int, progress_lines: bool) -> None:
    """Time a graph file and its operators on made-up inputs; prints the JSON that docs/BENCH.md describes."""
    from pocketvl_runtime.bench import bench_graph as measure
    from pocketvl_runtime.variant_choice import default_threads

    with bar("timing", as_lines=progress_lines) as tell:
        result = measure(Path(graph), threads or (1, default_threads()), runs, tell)
    _print_json(result)


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


def _one_of(image: str | None, audio: str | None) -> str:
    """What is asked about.

    Raises:
        UsageError: not exactly one was given.
    """
    if audio is None and image is None:
        raise click.UsageError("Missing option '--image', or '--audio' where the model listens.")
    if audio is not None and image is not None:
        raise click.UsageError("give --image or --audio, not both")
    return (audio or "") if image is None else image


def _check_media(model: Model, audio: str | None) -> None:
    """Raises BundleError for a picture to a model that listens, and for a sound to one that sees."""
    _ = model.image_processor if audio is None else model.audio_processor


def _load(bundle: str, variant: str | None, threads: int | None) -> Model:
    from pocketvl_runtime.model import load

    model = load(bundle, variant, threads)
    _print_notes(model.notes)
    return model


def _chosen(asked: Sequence[str], bundle: Bundle) -> Sequence[str]:
    from pocketvl_runtime.variant_choice import nothing_runs, runnable_variants

    chosen = asked or runnable_variants(bundle)
    if not chosen:
        raise nothing_runs(bundle)
    return chosen


def _say(line: str) -> None:
    click.echo(printable(line))


def _print_notes(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        say_line("note", note)


def _print_json(value: object) -> None:
    from pocketvl_runtime.schema import encode

    click.echo(json.dumps(encode(value)))


def _print_bench(result: BenchResult) -> None:
    machine = result.machine
    where = ", ".join(filter(None, (machine.device, machine.cpu, machine.isa, *machine.governors)))
    _say(f"{where}; median (p10) ms of {result.settings.runs} interleaved runs")
    for name, measured in result.variants.items():
        for timing in measured.timings:
            cells = [f"{s} {each.median:.2f} ({each.p10:.2f})" for s, each in timing.stages.items()]
            plural = "s" if timing.threads > 1 else " "
            _say(f"  {name:<14} {timing.threads} thread{plural}  {'  '.join(cells)}")
    for load in result.sustained:
        _say(
            f"  {load.variant:<14} {load.duration_s:g} s without a pause, {load.threads} threads: from "
            f"{load.first_ms:.2f} to {load.last_ms:.2f} ms"
        )


def _print_scores(variant: str, rows: list[tuple[str, float, float]]) -> None:
    ranked = sorted(rows, key=lambda row: -row[2])
    _print_rows([(name, probability, f"  {similarity:+.3f}") for name, similarity, probability in ranked])
    click.echo(f"({variant})", err=True)


def _print_rows(rows: list[tuple[str, float, str]]) -> None:
    """Names with their probability, as a number and drawn; a third column may stand between."""
    width = max(len(printable(name)) for name, _, _ in rows)
    for name, probability, more in rows:
        drawn = "#" * round(_BAR_WIDTH * probability)
        click.echo(f"{printable(name):<{width}}  {probability:6.1%}{more}  {drawn}")


def main() -> None:
    """Entry point of `pocketvl-run`."""
    warnings.simplefilter("ignore", BackendWarning)  # what they say is printed as notes, each once
    run_command(cli, "pocketvl-run")
