"""docs/RESULTS.md, out of what was measured of the rows; no figure comes from anywhere else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results.latency import LatencyReport, VariantLatency
from bench.results.measure import ZSTD_LEVEL
from bench.results.picture import Curve, Panel, Point, draw
from bench.results.record import (
    LATENCY_FILE,
    Answers,
    Files,
    Measured,
    read_measured,
    read_record,
    unpacked,
)
from bench.results.rows import BATCH, CONTRASTS, RECIPE_CURVE, Contrast, Kind, Row, Teacher
from pocketvl.errors import DataError
from pocketvl.lower.backends import backend_of
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.statistics import PairedDifference, paired_difference, wilson_interval
from pocketvl_runtime.manifest import Engine, Precision, variant_name

_ENGINES = {engine: backend_of(engine).title for engine in reversed(Engine)}
_ASKED = {
    Metric.MATCH_HARD: "Of so many pictures (%) the caption ranks above all of its hard negatives.\n",
    Metric.RETRIEVAL_R1: "So many captions (%) find their own picture before 99 others.\n",
    Metric.RETRIEVAL: "So many captions (%) find their own picture before all others.\n",
    Metric.CLASSIFY: "So many pictures (%) are nearest to their own label.\n",
    Metric.ASK: "So many questions (%) are answered right.\n",
}
_TIMED: Mapping[str, Precision | None] = {"fp32": Precision.FP32, "int8": None}
"""What is timed of a row; None: its small graphs, whatever they are held in."""
_AS_FAST = 0.95
"""Of two times, what may be the machine's mood."""


@dataclass(frozen=True)
class Shown:
    """A row with everything that was measured of it.

    Attributes:
        row: which.
        measured: its record.
        teacher: that of the model it started from.
        latency: by variant; {} where it was not timed.
    """

    row: Row
    measured: Measured
    teacher: Measured
    latency: dict[str, VariantLatency]

    def files(self, engine: Engine) -> Files | None:
        """Its small graphs."""
        return self.measured.files.get(variant_name(engine, self.row.precision))

    def timed(self, engine: Engine, precision: Precision | None = None) -> VariantLatency | None:
        """A variant's latency; of its small graphs where no precision is named."""
        return self.latency.get(variant_name(engine, precision or self.row.precision))


Column = tuple[str, Callable[[Shown], str]]


def write_results(rows: Sequence[Row], work: Path, out: Path) -> tuple[Row, ...]:
    """Write the page, and a picture a teacher beside it; sections of teachers that were not measured stay.

    Args:
        rows: what is shown, in this order.
        work: where rows are kept.
        out: the page; pictures carry its name, `results.png` for RESULTS.md.

    Returns:
        The rows that are not measured as they are described today.

    Raises:
        DataError: the teacher of a measured row is not measured.
    """
    measured = {row: found for row in rows if (found := read_measured(work, row)) is not None}
    if not measured:
        raise DataError(f"nothing is measured in {work}: train and measure rows first")
    missing = tuple(row for row in rows if row not in measured)
    kept = _sections(out.read_text(encoding="utf-8")) if out.exists() else {}
    parts = [_head()]
    for index, teacher in enumerate(dict.fromkeys(row.teacher for row in rows)):
        if all(row.teacher != teacher for row in measured):
            parts += [kept[teacher.name]] if teacher.name in kept else []
            continue
        timed = read_record(LatencyReport, work / teacher.name / LATENCY_FILE)
        shown = _shown(teacher, measured, timed)
        picture = out.with_name(f"{out.stem.lower()}{f'-{teacher.name}' if index else ''}.png")
        if teacher.exported:
            draw(panels_of(shown), picture)
        parts.append(_section(teacher, shown, timed, picture.name))
        if names := [row.name for row in missing if row.teacher == teacher]:
            parts.append(_prose(f"Not measured yet: {', '.join(names)}."))
    out.write_text("\n".join(parts), encoding="utf-8", newline="\n")
    return missing


def _sections(page: str) -> dict[str, str]:
    """The sections of a page as it was written before, by teacher."""
    found = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:]
    return {name: f"## {name}\n{text.rstrip()}\n" for name, text in zip(found[::2], found[1::2], strict=True)}


def panels_of(shown: Sequence[Shown]) -> tuple[Panel, Panel]:
    """What is drawn: answers in torch before learning, and those of the small TFLite files after it."""
    metric = shown[0].row.teacher.metrics[0].value
    own = next(each for each in shown if not each.row.steps)
    right = float(unpacked(own.measured.after[metric]).mean())
    before, after = dict[str, list[Point]](), dict[str, list[Point]]()
    start = own.files(Engine.TFLITE)
    for each in shown:
        files = each.files(Engine.TFLITE)
        if not each.row.curve or files is None or start is None:
            continue
        if each.measured.before:
            begin = _point(start, own.measured.after[metric])
            before.setdefault(each.row.curve, [begin]).append(_point(files, each.measured.before[metric]))
        begin = _point(start, start.answers[metric])
        after.setdefault(each.row.curve, [begin]).append(_point(files, files.answers[metric]))
    label = f"{metric} of {len(own.measured.after[metric]):,} (%)"
    return (
        Panel("before learning, in torch", label, right, _curves(before)),
        Panel("after learning, in these files", label, right, _curves(after)),
    )


def _curves(points: Mapping[str, Sequence[Point]]) -> tuple[Curve, ...]:
    """Each begins at the teacher, but for recipes, which are no one method."""
    return tuple(
        Curve(name, tuple(each if name != RECIPE_CURVE else each[1:]), joined=name != RECIPE_CURVE)
        for name, each in points.items()
    )


def _point(files: Files, answers: str) -> Point:
    rate, low, high = _rate(answers)
    return Point(files.size_bytes / 1e6, rate, low, high)


def _shown(teacher: Teacher, measured: dict[Row, Measured], timed: LatencyReport | None) -> tuple[Shown, ...]:
    mine = {row: found for row, found in measured.items() if row.teacher == teacher}
    own = next((found for row, found in mine.items() if not row.steps), None)
    if own is None:
        raise DataError(f"{teacher.name} itself is not measured, and rows are held against it")
    times = timed.rows if timed is not None else {}
    return tuple(Shown(row, found, own, times.get(row.name, {})) for row, found in mine.items())


def _head() -> str:
    return "# Every compression method, alone and together\n\n" + _prose(
        """`make results` measures this page again, row by row; it goes on where it was interrupted. Each row
        is a recipe of `pocketvl compress`, judged on scenes that nobody trained on: once without any learning
        (before), and once after a fixed number of training steps (after). Intervals are 95 %: Wilson's for a
        rate, Tango's for the difference of two models on the same samples."""
    )


def _prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False) + "\n"


def _section(teacher: Teacher, shown: Sequence[Shown], timed: LatencyReport | None, picture: str) -> str:
    parts = [f"## {teacher.name}\n", _conditions(shown)]
    if teacher.exported:
        parts += [f"![accuracy against size, a curve a method]({picture})\n"]
    parts += ["### Size and speed\n", _timing_told(timed), _table(_size_columns(), shown)]
    for index, metric in enumerate(teacher.metrics):
        columns = _metric_columns(metric) + ([] if index else _training_columns())
        parts += [f"### {metric.value}\n", _ASKED[metric], _table(columns, shown)]
    contrasts = [line for each in CONTRASTS if (line := _contrast(each, shown)) is not None]
    if contrasts:
        head = ["| compared | metric | one | other | points | more than the interval |", "|---" * 6 + "|"]
        parts += ["### One against the other\n", "\n".join(head + contrasts) + "\n"]
    if zeros := _zeros(shown):
        parts += ["### Zeros\n", zeros]
    if timed is not None:
        caption = "Medians, and in brackets tenth percentiles, of one picture, of one text.\n"
        parts += ["### Milliseconds\n", caption, _table(_latency_columns(), shown)]
    return "\n".join(parts)


def _conditions(shown: Sequence[Shown]) -> str:
    samples = len(next(iter(shown[0].teacher.after.values())))
    devices = sorted({each.measured.trained.device for each in shown} - {""})
    trained = f", trained on {' and '.join(devices)}" if devices else ""
    if shown[0].row.teacher.kind is Kind.ANSWERING:
        batches = sorted({learn.batch_size for each in shown for learn in each.row.learns})
        step = f" A step shows {' or '.join(map(str, batches))} questions." if batches else ""
        return _prose(f"Judged on {samples:,} questions{trained}.{step}")
    return _prose(
        f"""Judged on {samples:,} samples{trained}. A step shows {BATCH} pictures, or as many texts, or as
        many pictures with two texts each. A tower by itself learns nothing from labels, so that rows taught
        by labels take all of their steps with both towers, which shows them more. All learn at one rate,
        which is not the best for each: a model that has lost little loses more in its first steps than so few
        bring back, as rows at a tenth of the rate show. Shipped recipes train as long and as fast as they
        say."""
    )


def _timing_told(timed: LatencyReport | None) -> str:
    if timed is None:
        return ""
    return _prose(
        f"""Bytes are of the int8 graph files (int4 where the row says so), as they lie on a device and
        compressed with zstd at level {ZSTD_LEVEL}, as they are downloaded. Times are of one picture and one
        text, as part of what the teacher's fp32 graphs take in the same engine: medians of {timed.runs} turns
        with every row in each turn, one process an engine, {timed.threads} threads,
        {" and ".join(timed.engines)}, on {timed.machine}."""
    )


def _size_columns() -> list[Column]:
    return [
        ("parameters (M)", lambda each: f"{each.measured.parameters / 1e6:.2f}"),
        ("multiply-adds (M)", lambda each: f"{each.measured.macs / 1e6:.0f}"),
        *((f"{engine.value} (MB)", _megabytes_in(engine)) for engine in _ENGINES),
        *((f"{engine.value}, zstd (MB)", _zstd_megabytes_in(engine)) for engine in _ENGINES),
        *(
            (f"{name} {label}", _ratio_in(engine, precision))
            for engine, name in _ENGINES.items()
            for label, precision in _TIMED.items()
        ),
    ]


def _training_columns() -> list[Column]:
    return [
        ("samples", lambda each: f"{each.measured.trained.samples:,}" if each.row.steps else ""),
        ("steps", lambda each: f"{each.row.training_steps:,}" if each.row.steps else ""),
        ("minutes", lambda each: f"{each.measured.trained.seconds / 60:.1f}" if each.row.steps else ""),
    ]


def _metric_columns(metric: Metric) -> list[Column]:
    name = metric.value

    def lost(each: Shown) -> str:
        if not each.row.steps or name not in each.measured.after:
            return ""
        return _difference(_compared(each.measured.after[name], each.teacher.after[name]))

    def of_files(engine: Engine) -> Callable[[Shown], str]:
        def cell(each: Shown) -> str:
            files = each.files(engine)
            return _percent(files.answers, name, interval=False) if files is not None else ""

        return cell

    return [
        ("before", lambda each: _percent(each.measured.before, name)),
        ("after", lambda each: _percent(each.measured.after, name)),
        ("to the teacher", lost),
        ("in tflite files", of_files(Engine.TFLITE)),
        ("in onnx files", of_files(Engine.ONNX)),
    ]


def _latency_columns() -> list[Column]:
    return [
        (f"{name} {label}", _milliseconds_in(engine, precision))
        for engine, name in _ENGINES.items()
        for label, precision in _TIMED.items()
    ]


def _table(columns: Sequence[Column], shown: Sequence[Shown]) -> str:
    """A table with a line above each group; a column that says nothing of any row is left out."""
    cells = [[cell(each) for _, cell in columns] for each in shown]
    kept = [index for index in range(len(columns)) if any(line[index] for line in cells)]
    lines = ["| | " + " | ".join(columns[index][0] for index in kept) + " |", "|---" * (len(kept) + 1) + "|"]
    group = ""
    for each, line in zip(shown, cells, strict=True):
        if each.row.group != group:
            group = each.row.group
            lines.append(f"| **{group}** |" + " |" * len(kept))
        lines.append(f"| {each.row.label} | " + " | ".join(line[index] for index in kept) + " |")
    return "\n".join(lines) + "\n"


def _contrast(contrast: Contrast, shown: Sequence[Shown]) -> str | None:
    """One line; None where one of the two is not measured."""
    by_name = {each.row.name: each for each in shown}
    one, other = by_name.get(contrast.row), by_name.get(contrast.against)
    if one is None or other is None:
        return None
    answers = one.measured.after, other.measured.after if other is not one else one.measured.before
    metric = one.row.teacher.metrics[0].value
    if not all(metric in each for each in answers):
        return None
    found = _compared(answers[0][metric], answers[1][metric])
    low, high = found.ci95_pp
    verdict = "yes" if low > 0 else "the other way round" if high < 0 else "no"
    rates = " | ".join(_percent(each, metric, interval=False) for each in answers)
    return f"| {contrast.what} | {metric} | {rates} | {_difference(found)} | {verdict} |"


def _zeros(shown: Sequence[Shown]) -> str:
    """What zeros between other weights buy in time, against the teacher's graphs of the same shapes."""
    own = next(each for each in shown if not each.row.steps)
    lines, ratios = [], []
    for each in shown:
        if not each.row.name.startswith("sparse-"):
            continue
        for engine, name in _ENGINES.items():
            for precision in (Precision.FP32, Precision.INT8):
                mine, teacher = each.timed(engine, precision), own.timed(engine, precision)
                if mine is not None and teacher is not None:
                    ratios.append(mine.ratio / teacher.ratio)
                    lines.append(f"- {each.row.label}, {name} {precision.value}: {ratios[-1]:.2f}")
    if not ratios:
        return ""
    faster = "do not run faster here" if min(ratios) >= _AS_FAST else "run faster in some of these"
    text = f"""Zeros between other weights **{faster}**: graphs keep their shapes, and neither engine skips a
        product by zero. Time as part of the teacher's in the same precision:"""
    return _prose(text) + "\n" + "\n".join(lines) + "\n"


def _compared(one: str, other: str) -> PairedDifference:
    """How much more the first has right."""
    return paired_difference(unpacked(one), unpacked(other))


def _rate(answers: str) -> tuple[float, float, float]:
    right = answers.count("1")
    return (right / len(answers), *wilson_interval(right, len(answers)))


def _percent(answers: Answers, metric: str, interval: bool = True) -> str:
    if metric not in answers:
        return ""
    rate, low, high = (100 * each for each in _rate(answers[metric]))
    return f"{rate:.1f} ({low:.1f} to {high:.1f})" if interval else f"{rate:.1f}"


def _difference(found: PairedDifference) -> str:
    low, high = found.ci95_pp
    return f"{found.drop_pp:+.2f} ({low:+.2f} to {high:+.2f})"


def _megabytes_in(engine: Engine) -> Callable[[Shown], str]:
    def cell(each: Shown) -> str:
        files = each.files(engine)
        return "" if files is None else f"{files.size_bytes / 1e6:.2f}"

    return cell


def _zstd_megabytes_in(engine: Engine) -> Callable[[Shown], str]:
    def cell(each: Shown) -> str:
        files = each.files(engine)
        return "" if files is None or files.zstd_bytes is None else f"{files.zstd_bytes / 1e6:.2f}"

    return cell


def _ratio_in(engine: Engine, precision: Precision | None) -> Callable[[Shown], str]:
    def cell(each: Shown) -> str:
        timed = each.timed(engine, precision)
        return "" if timed is None else f"{timed.ratio:.2f}"

    return cell


def _milliseconds_in(engine: Engine, precision: Precision | None) -> Callable[[Shown], str]:
    def cell(each: Shown) -> str:
        timed = each.timed(engine, precision)
        if timed is None:
            return ""
        return ", ".join(f"{took.median:.2f} ({took.p10:.2f})" for took in timed.components.values())

    return cell
