"""What several commands of `pocketvl-run` share: their options, loading a variant, printing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from pocketvl_runtime.console import printable, say_line
from pocketvl_runtime.isa import MAX_THREADS

if TYPE_CHECKING:
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.model import Model

threads_type = click.IntRange(1, MAX_THREADS)
# As text: Path("") would be the working directory.
bundle_argument = click.argument("bundle", type=click.Path())
variant_option = click.option(
    "--variant",
    help="Which variant. Default: of the accepted ones that can run here, int8, then fp16, then fp32, "
    "then others; TFLite before ONNX. One that only a stand-in for its engine runs comes last.",
)
variants_option = click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Which variant; may be repeated. Default: all that can run here.",
)
threads_option = click.option(
    "--threads",
    type=threads_type,
    help="Threads for one inference. Default: as many as there are processors to use, at most 4.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def load_model(bundle: str, variant: str | None, threads: int | None) -> Model:
    """The model, after its notes are printed."""
    from pocketvl_runtime.model import load

    model = load(bundle, variant, threads)
    print_notes(model.notes)
    return model


def chosen_variants(asked: Sequence[str], bundle: Bundle) -> Sequence[str]:
    """Those that were asked for; otherwise all that can run here.

    Raises:
        BackendError: none can.
    """
    from pocketvl_runtime.variant_choice import nothing_runs, runnable_variants

    chosen = asked or runnable_variants(bundle)
    if not chosen:
        raise nothing_runs(bundle)
    return chosen


def say(line: str) -> None:
    """Print a line, whatever is in it."""
    click.echo(printable(line))


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on stderr, each once."""
    for note in dict.fromkeys(notes):
        say_line("note", note)


def print_json(value: object) -> None:
    """Print one JSON object in a line."""
    from pocketvl_runtime.schema import encode

    click.echo(json.dumps(encode(value)))
