"""Latency against fidelity: a panel a tower, a colour a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_COLOURS = {
    "pocketvl": "#d62728",
    "openvino": "#4269d0",
    "litert-quantizer": "#3ca951",
    "onnxruntime": "#efb118",
    "executorch": "#9c6b4e",
}
_MARKERS = {"int8dyn": "o", "int8": "s", "int4": "D", "fp32": "^"}
_SHOWN = {"int8dyn": "dynamic int8", "int8": "static int8", "int4": "int4", "fp32": "fp32"}
_COSINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_SMALLEST_LOSS = 1e-6


@dataclass(frozen=True)
class Point:
    """A method: its tool, its kind of precision, milliseconds, and median centred cosine."""

    tool: str
    kind: str
    ms: float
    cosine: float


@dataclass(frozen=True)
class Panel:
    """One tower."""

    title: str
    points: tuple[Point, ...]


def kind_of(method: str) -> str:
    """How a method's name says it quantizes."""
    return next((kind for kind in ("int8dyn", "int4", "fp32") if kind in method), "int8")


def draw(panels: Sequence[Panel], threads: int, path: Path) -> None:
    """Draw the panels, two in a row, into a PNG; the same figures give the same bytes."""
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.2, 3.4 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        _plot(axis, panel, threads)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    points = [point for panel in panels for point in panel.points]
    tools = [tool for tool in _COLOURS if any(point.tool == tool for point in points)]
    kinds = [kind for kind in _MARKERS if any(point.kind == kind for point in points)]
    handles = [
        *(Line2D([], [], color=_COLOURS[tool], marker="o", linewidth=0, label=tool) for tool in tools),
        *(
            Line2D([], [], color="0.4", marker=_MARKERS[kind], linewidth=0, label=_SHOWN[kind])
            for kind in kinds
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _plot(axis: Axes, panel: Panel, threads: int) -> None:
    for point in panel.points:
        axis.plot(
            point.ms,
            max(1 - point.cosine, _SMALLEST_LOSS),
            color=_COLOURS[point.tool],
            marker=_MARKERS[point.kind],
            markersize=8 if point.tool == "pocketvl" else 6,
            linewidth=0,
        )
    axis.set_yscale("log")
    axis.set_ylim(2, _SMALLEST_LOSS / 2)
    axis.set_yticks([1 - cosine for cosine in _COSINES], [f"{cosine:g}" for cosine in _COSINES])
    axis.minorticks_off()
    axis.set_xlim(left=0)
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel(f"ms, median, {threads} thread{'s' * (threads > 1)}", fontsize=8)
    axis.set_ylabel("centred cosine to torch", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
