"""`pocketvl-run match`, `classify`, `ask`, `rerank` and `embed`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pocketvl_runtime.command_parts import (
    bundle_argument,
    json_option,
    load_model,
    print_json,
    say,
    threads_option,
    variant_option,
)
from pocketvl_runtime.console import bar, printable

if TYPE_CHECKING:
    from pocketvl_runtime.model import Model
    from pocketvl_runtime.tasks import ClassifyReport, MatchReport, RerankReport

Command = TypeVar("Command", bound=Callable[..., Any])

_image = click.option("--image", type=click.Path(), help="A picture.")
_audio = click.option(
    "--audio", type=click.Path(), help="A WAV file, in place of --image, where the model listens."
)
_BAR_WIDTH = 24


def _asking(command: Command) -> Command:
    return bundle_argument(variant_option(threads_option(json_option(command))))


@click.command()
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
    model = _load_for(audio, bundle, variant, threads)
    report = model.match(media, texts)
    _print_scores(report, as_json, [(r.text, r.similarity, r.probability) for r in report.results])


@click.command()
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
    model = _load_for(audio, bundle, variant, threads)
    report = model.classify(media, labels or None, templates or None)
    _print_scores(report, as_json, [(r.label, r.similarity, r.probability) for r in report.results])


@click.command()
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
    report = load_model(bundle, variant, threads).ask(image, questions, top)
    if as_json:
        print_json(report)
        return
    for result in report.results:
        say(result.question)
        _print_rows([(each.answer, each.probability, "") for each in result.answers])
    click.echo(f"({report.variant})", err=True)


@click.command()
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
    model = _load_for(audio, bundle, variant, threads)
    report = model.rerank(media, texts, top)
    _print_scores(report, as_json, [(r.text, r.similarity, r.probability) for r in report.results])


@click.command()
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
    model = load_model(bundle, variant, threads)
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
        print_json({"variant": model.variant, "space": model.space, "results": rows})
    else:
        for row in rows:
            print_json(row)


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


def _load_for(audio: str | None, bundle: str, variant: str | None, threads: int | None) -> Model:
    """The model; raises BundleError for a picture to one that listens, and for a sound to one that sees."""
    model = load_model(bundle, variant, threads)
    _ = model.image_processor if audio is None else model.audio_processor
    return model


def _print_scores(
    report: MatchReport | ClassifyReport | RerankReport,
    as_json: bool,
    rows: list[tuple[str, float | None, float]],
) -> None:
    """A report as JSON, or its rows of name, similarity (where there is one) and probability, best first."""
    if as_json:
        print_json(report)
        return
    ranked = sorted(rows, key=lambda row: -row[2])
    _print_rows(
        [
            (name, probability, "" if similarity is None else f"  {similarity:+.3f}")
            for name, similarity, probability in ranked
        ]
    )
    click.echo(f"({report.variant})", err=True)


def _print_rows(rows: list[tuple[str, float, str]]) -> None:
    """Names with their probability, as a number and drawn; a third column may stand between."""
    width = max(len(printable(name)) for name, _, _ in rows)
    for name, probability, more in rows:
        drawn = "#" * round(_BAR_WIDTH * probability)
        click.echo(f"{printable(name):<{width}}  {probability:6.1%}{more}  {drawn}")
