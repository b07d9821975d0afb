"""Inline SVG that takes its colours from the page, for the plots of a report.

Matplotlib knows nothing of CSS. So every colour is drawn as a stand-in that occurs nowhere else and is then
replaced by the page's own variable: one picture serves the light and the dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pocketvl_runtime.manifest import Engine, Precision

INK, MUTED, LINE, PANEL = "#010101", "#010102", "#010103", "#010104"
ENGINE_COLOUR = {Engine.ONNX: "#010105", Engine.TFLITE: "#010106"}
SERIES = ("#010107", "#010108", "#010109", "#01010a", "#01010b", "#01010c", "#01010d")
"""Colours of what has none of its own: stages, devices."""
_CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PANEL: "var(--panel)",
    ENGINE_COLOUR[Engine.ONNX]: "var(--onnx)",
    ENGINE_COLOUR[Engine.TFLITE]: "var(--tflite)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
MARKER = {
    Precision.FP32: "o",
    Precision.FP16: "D",
    Precision.INT8: "s",
    Precision.INT8DYN: "^",
    Precision.INT4: "v",
    Precision.INT2: "<",
    Precision.MIXED: "P",
}
SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5}
_WIDTH_INCHES = 5.2
_LABEL_POSITIONS = (
    (8, 6, "left"), (8, -13, "left"), (-8, 6, "right"), (-8, -13, "right"),
    (8, 20, "left"), (8, -27, "left"), (-8, 20, "right"), (-8, -27, "right"),
)  # fmt: skip
_HALO = {"facecolor": PANEL, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def css_variable(colour: str) -> str:
    """What the page calls a colour."""
    return _CSS_VARIABLES[colour]


def draw_svg(name: str, height_inches: float, draw: Callable[[Axes], None]) -> str:
    """What `draw` puts into one pair of axes, as an SVG as wide as its place in the page.

    Args:
        name: what its ids begin with; no other picture of the page may have the same.
        height_inches: of a picture that is 5.2 inches wide.
        draw: is handed the axes.
    """
    return draw_figure(name, height_inches, lambda figure: draw(figure.add_subplot()))


def draw_figure(name: str, height_inches: float, draw: Callable[[Figure], None]) -> str:
    """As `draw_svg`, of any number of axes."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        out = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for stand_in, variable in _CSS_VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg.strip()


def label_apart(
    axes: Axes, marks: Sequence[tuple[str, float, float, str]], reserved: Sequence[Annotation]
) -> None:
    """Write each mark's name beside it, at the first of eight positions that no other name or mark takes."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()
    centres = [axes.transData.transform((x, y)) for _, x, y, _ in marks]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    taken += [label.get_window_extent() for label in reserved]
    frame = axes.get_window_extent()
    for name, x, y, colour in marks:
        for position in _LABEL_POSITIONS:
            right, up, align = position
            label = axes.annotate(name, (x, y), (right, up), ha=align, color=colour, bbox=_HALO, **SMALL)
            box = label.get_window_extent()
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0
            free = inside and not any(box.overlaps(other) for other in taken)
            if free or position == _LABEL_POSITIONS[-1]:
                taken.append(box)
                break
            label.remove()
