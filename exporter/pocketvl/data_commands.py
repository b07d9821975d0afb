"""`pocketvl data import`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketvl import api

if TYPE_CHECKING:
    from pocketvl.data.intake import ImportReport

FORMATS = ("folders", "coco", "flickr", "webdataset", "parquet", "jsonl", "photos")
_MOST_NAMED = 10
_folder = click.Path(path_type=Path)


@click.command("import")
@click.argument("format", type=click.Choice(FORMATS))
@click.argument("source", type=_folder)
@click.option(
    "-o",
    "--out",
    required=True,
    type=_folder,
    help="The folder to write; replaced when it is whole.",
)
@click.option(
    "--split",
    default="",
    metavar="NAME=SIZE,...",
    help="As train=rest,calibration=500,test=0.1: a number of pictures, a share, or the rest. Default: the "
    "source's own splits, or else one folder.",
)
@click.option("--ignore-splits", is_flag=True, help="Divide all of it anew, whatever splits the source has.")
@click.option("--images", type=_folder, help="The folder of pictures, where they are not beside the source.")
@click.option(
    "--class-names",
    type=_folder,
    help="Labels by class folder or number: JSON (an object or a list), or a text with a label a line.",
)
@click.option("--image-column", help="Of parquet and jsonl: the column of pictures.")
@click.option("--caption-column", help="Likewise of captions.")
@click.option("--label-column", help="Likewise of labels.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    help="A text with {label} in it that labels stand in; may be repeated. Default: a photo of a {label}.",
)
@click.option("--link", is_flag=True, help="Hard links to pictures in place of copies.")
@click.option("--strict", is_flag=True, help="Fail at the first picture that cannot be used.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def import_(
    format: str,  # noqa: A002
    source: Path,
    out: Path,
    split: str,
    ignore_splits: bool,
    images: Path | None,
    class_names: Path | None,
    image_column: str | None,
    caption_column: str | None,
    label_column: str | None,
    templates: tuple[str, ...],
    link: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Make dataset folders of SOURCE, a dataset in a FORMAT that people keep theirs in.

    \b
    folders     a folder of pictures for each class; a folder or a .zip
    coco        COCO's captions_*.json, or a folder with them in annotations/
    flickr      the caption tables of Flickr8k and Flickr30k
    webdataset  .tar shards: a picture with .txt, .json or .cls
    parquet     of Hugging Face's datasets; needs pocketvl[parquet]
    jsonl       of Hugging Face's datasets; as metadata.jsonl
    photos      a folder or .zip of pictures without texts

    Pictures stay encoded as they are. Equal ones never stand in two splits.
    """
    from pocketvl.console import bar
    from pocketvl.data.importers.base import read_class_names

    columns = {"image": image_column, "caption": caption_column, "label": label_column}
    with bar() as progress:
        report = api.import_data(
            format,
            source,
            out,
            split=split,
            ignore_splits=ignore_splits,
            images=images,
            class_names=None if class_names is None else read_class_names(class_names),
            columns={name: column for name, column in columns.items() if column is not None},
            templates=templates,
            link=link,
            strict=strict,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False))
        return
    for line in _lines(out, report):
        click.echo(line)
    for line in _problems(report):
        click.echo(line, err=True)


def _lines(out: Path, report: ImportReport) -> Iterator[str]:
    for name, split in report.splits.items():
        yield (
            f"{out / name}: {split.samples:,} samples, {split.captioned:,} with captions, "
            f"{split.labelled:,} with a label"
        )


def _problems(report: ImportReport) -> Iterator[str]:
    """What a user should know of what was not taken as it was."""
    if report.skipped:
        yield f"skipped {len(report.skipped):,} pictures that cannot be used:"
        yield from (f"  {line}" for line in report.skipped[:_MOST_NAMED])
        if len(report.skipped) > _MOST_NAMED:
            yield f"  and {len(report.skipped) - _MOST_NAMED:,} more, in import.json"
    for count, what in (
        (report.merged, "were of a picture that another sample has, and are part of that now"),
        (report.overlapping, "were left out: the source has their picture in another split too"),
        (report.left_out, "are in none of the splits"),
    ):
        if count:
            yield f"{count:,} samples {what}"
    if not any(split.captioned or split.labelled for split in report.splits.values()):
        yield (
            "note: these pictures have no texts, which an image encoder by itself does not need; one that "
            "reads texts is calibrated with them, so give samples.jsonl captions or labels before you export "
            "with it"
        )
