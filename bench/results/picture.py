"""Accuracy against size: a curve a method, with intervals, and the teacher as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#3ca951", "#9c6b4e", "#a463f2", "#17324d", "#97bbf5")
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Point:
    """A model: megabytes, and its rate with limits, all in [0, 1]."""

    megabytes: float
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Models of one method; joined where they are one method at several ratios."""

    name: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One plot: its curves, and the teacher's rate."""

    title: str
    measured: str
    teacher: float
    curves: tuple[Curve, ...]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels side by side into a PNG; the same curves give the same bytes."""
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    for axis, panel in zip(axes, panels, strict=True):
        _plot(axis, panel, names)
    axes[0].set_ylabel(panels[0].measured)
    handles: dict[str, Artist] = {}
    for axis in axes:
        shown, labels = axis.get_legend_handles_labels()
        handles.update(zip(labels, shown, strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _plot(axis: Axes, panel: Panel, names: Sequence[str]) -> None:
    axis.axhline(100 * panel.teacher, color="0.6", linewidth=1, linestyle="--", label="teacher, torch")
    for curve in panel.curves:
        index = names.index(curve.name)
        rates = [100 * point.rate for point in curve.points]
        below = [100 * (point.rate - point.low) for point in curve.points]
        above = [100 * (point.high - point.rate) for point in curve.points]
        axis.errorbar(
            [point.megabytes for point in curve.points],
            rates,
            yerr=(below, above),
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=5,
            linewidth=1.4 if curve.joined else 0,
            elinewidth=1,
            label=curve.name,
        )
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel("int8 or int4 TFLite files (MB)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
