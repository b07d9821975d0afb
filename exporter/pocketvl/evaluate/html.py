"""report.html: one self-contained page out of a report and the golden pictures."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps

from pocketvl.errors import DataError
from pocketvl.evaluate import plots
from pocketvl.evaluate.explained_ops import ExplainedOps
from pocketvl.evaluate.profiles_html import show_profiles
from pocketvl.evaluate.report import MetricReport, Report, SearchReport, VariantReport
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.manifest import Precision

_THUMBNAIL_PIXELS = 360
_TOP_MATCHES = 5


@dataclass(frozen=True)
class ImageMatches:
    """One golden picture with what each model says of it.

    Attributes:
        name: the picture's file name.
        image: the picture's own bytes, in any format that Pillow opens.
        texts: the K texts it was matched with.
        reference: K probabilities by torch fp32.
        variants: variant name -> K probabilities.
    """

    name: str
    image: bytes
    texts: tuple[str, ...]
    reference: tuple[float, ...]
    variants: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.reference), *map(len, self.variants.values())}
        if len(lengths) != 1 or not self.texts:
            raise DataError(f"picture {self.name}: texts and probabilities must be equally many, 1 or more")


def render_html(
    report: Report,
    images: Sequence[ImageMatches] = (),
    training: bytes | None = None,
    profiles: Mapping[str, BenchResult] | None = None,
    explained: Mapping[str, ExplainedOps] | None = None,
) -> str:
    """Render the report as one HTML page that needs nothing from outside.

    The same arguments give the same page, byte for byte.

    Args:
        report: what was measured.
        images: shown in this order with their best matches.
        training: a PNG of the checkpoint's training curves.
        profiles: what was measured of the bundle on devices, by their names, shown in this order.
        explained: by the same names, what is said of the operators of those where they were timed.

    Raises:
        DataError: a picture cannot be opened.
    """
    environment = Environment(
        loader=PackageLoader("pocketvl.evaluate", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": _percent,
        "points": _points,
        "bound": _bound,
        "loss": _loss,
        "interval": _interval,
        "megabytes": _megabytes,
        "grouped": lambda number: f"{number:,}",
        "nines": _cosine,
        "pretty": _pretty,
        "component": plots.component_label,
        "port": plots.port_label,
    }
    environment.filters.update(filters)
    variants = report.ordered_variants()
    return environment.get_template("report.html.j2").render(
        report=report,
        variants=variants,
        metrics=[metric for metric in Metric if metric in report.reference],
        headline=_headline(variants),
        verdict=_verdict(report, variants),
        ratios={variant.name: _ratios(report, variant) for variant in variants},
        threads=report.thread_counts(),
        stages=list(dict.fromkeys(stage for variant in variants for stage in variant.latency_ms)),
        plots=_plots(report),
        assumed={variant.name for variant in variants if _is_assumed(variant)},
        sensitivity=plots.worst_first(report.sensitivity),
        bits=[] if report.search is None else _bits(report.search),
        images=[_shown(image) for image in images],
        ports=[plots.component_label(port) for port in plots.ports_of(report)],
        graph=next(iter(plots.graph_stages(report)), ""),
        profiles=show_profiles(report, profiles or {}, explained),
        training=None if training is None else f"data:image/png;base64,{base64.b64encode(training).decode()}",
    )


def _headline(variants: Sequence[VariantReport]) -> str:
    judged = [variant for variant in variants if variant.gate is not None]
    failed = [variant.name for variant in judged if variant.gate is not None and not variant.gate.passed]
    unproved = [variant.name for variant in judged if variant.gate is not None and variant.gate.wants_samples]
    if not judged:
        return "Measured, not yet judged"
    if not failed:
        every = "The only variant passes" if len(judged) == 1 else f"All {len(judged)} variants pass"
        return f"{every} the gate"
    lost = [name for name in failed if name not in unproved]
    parts = [f"{', '.join(lost)} {'fails' if len(lost) == 1 else 'fail'} the gate"] if lost else []
    if unproved:
        parts.append(f"{', '.join(unproved)} {'is' if len(unproved) == 1 else 'are'} not proved")
    return f"{'; '.join(parts)}; {len(judged) - len(failed)} of {len(judged)} variants pass"


def _is_assumed(variant: VariantReport) -> bool:
    """Whether a variant passed on an estimate whose interval reaches beyond the allowance."""
    if variant.gate is None or not variant.gate.passed:
        return False
    allowed = variant.gate.allowance_pp
    intervals = {metric: measured.drop_ci95 for metric, measured in variant.metrics.items()}
    return any(
        interval is not None and interval[1] > allowed[metric]
        for metric, interval in intervals.items()
        if metric in allowed
    )


def _verdict(report: Report, variants: Sequence[VariantReport]) -> str:
    """One or two sentences: which passing variant is smallest, and what it costs."""
    passing = [variant for variant in variants if variant.gate is not None and variant.gate.passed]
    if not passing:
        return ""
    smallest = min(passing, key=lambda variant: (variant.size_bytes, variant.name))
    sentence = f"The smallest that passes is {smallest.name} with {_megabytes(smallest.size_bytes)} MB"
    whole = _full_precision(report, smallest)
    if whole is not None and whole is not smallest:
        sentence += f", {100 * smallest.size_bytes / whole.size_bytes:.0f} % of {whole.name}"
    measured = next((smallest.metrics[metric] for metric in Metric if metric in smallest.metrics), None)
    if measured is None:
        return sentence + ". No task data was given, so parity alone was measured."
    name = next(metric for metric in Metric if metric in smallest.metrics).value
    return f"{sentence}; it {_change(measured)} in {name}."


def _change(measured: MetricReport) -> str:
    drop, limits = measured.drop_pp or 0.0, _interval(measured.drop_ci95)
    if drop == 0.0:
        return f"loses nothing (95 % CI {limits} pp)"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.2f} pp (95 % CI of the loss {limits})"


def _full_precision(report: Report, variant: VariantReport) -> VariantReport | None:
    return report.variants.get(f"{variant.engine.value}-{Precision.FP32.value}")


def _ratios(report: Report, variant: VariantReport) -> dict[str, dict[str, str]]:
    """Median latency over that of fp32 in the same engine, per stage and thread count."""
    whole = _full_precision(report, variant)
    if whole is None:
        return {}
    return {
        stage: {
            threads: f"{latency.median / whole.latency_ms[stage][threads].median:.2f}"
            for threads, latency in by_threads.items()
            if threads in whole.latency_ms.get(stage, {}) and whole.latency_ms[stage][threads].median > 0
        }
        for stage, by_threads in variant.latency_ms.items()
    }


@dataclass(frozen=True)
class _Plot:
    title: str
    caption: str
    svg: Markup


def _plots(report: Report) -> list[_Plot]:
    main = next((metric for metric in Metric if metric in report.reference), Metric.MATCH_HARD)
    counts = report.thread_counts()
    shades = f"light: {counts[0]} thread, full: {counts[-1]}; " if len(counts) > 1 else ""
    where = f"{report.machine.cpu}, {report.machine.isa}; batch 1, interleaved runs"
    latency = f"{where}. Median; {shades}notch: p10."
    lost = f"Paired on the same samples, 95 % interval. {_marks(report)}Upright tick: allowance."
    kinds = "Grey, with its figure: torch fp32. Marks: the variants, in the table\u2019s order."
    ports = plots.ports_of(report)
    close = (
        f"Mean-centred cosine to torch fp32{_legend(ports, 'line')}. Further right is closer; "
        ".9\u2074 stands for .9999."
    )
    drawn = (
        ("Accuracy over size", f"{main.value} with its 95 % interval.", plots.accuracy_by_size(report, main)),
        ("What was lost", lost, plots.drops(report)),
        *(
            (f"Latency of the {stage} graph", latency, plots.latency_bars(report, stage))
            for stage in plots.graph_stages(report)
        ),
        ("Accuracy by kind", kinds, plots.accuracy_by_kind(report)),
        ("How close the outputs are", close, plots.centred_cosines(report)),
        ("Sensitivity of the layers", _sensitivity_caption(report), plots.sensitivities(report)),
        ("Bits per layer, searched", _search_caption(report.search), plots.search_front(report)),
    )
    return [_Plot(title, caption, Markup(svg)) for title, caption, svg in drawn if svg is not None]


def _search_caption(search: SearchReport | None) -> str:
    if search is None:
        return ""
    limit, unit = plots.budget_of(search)
    return (
        f"{search.sampler.upper()} tried {len(search.trials):,} choices for {search.engine.value}; "
        f"{search.samples:,} samples that do not judge chose one within {limit:.3g} {unit}. "
        "Hollow: beyond the budget. Line: the best for its cost."
    )


@dataclass(frozen=True)
class _Bits:
    """Groups of layers of one component that got the same bits."""

    component: str
    bits: int
    layers: tuple[str, ...]


def _bits(search: SearchReport) -> list[_Bits]:
    """The chosen layers, by component and bits; layers of a group as "parent.{k_proj,q_proj}"."""
    found: dict[tuple[str, int], list[str]] = {}
    for name, bits in search.bits.items():
        component, _, layers = name.partition("/")
        found.setdefault((component, bits), []).append(_brace(layers.split("+")))
    ordered = sorted(found.items(), key=lambda each: each[0])
    return [_Bits(plots.component_label(name), bits, tuple(layers)) for (name, bits), layers in ordered]


def _brace(layers: Sequence[str]) -> str:
    parents = {layer.rpartition(".")[0] for layer in layers}
    if len(layers) == 1 or len(parents) > 1:
        return " + ".join(layers)
    own = ",".join(layer.rpartition(".")[2] for layer in layers)
    return ".".join(filter(None, (*parents, f"{{{own}}}")))


def _sensitivity_caption(report: Report) -> str:
    count = len(report.sensitivity)
    shown = f"The worst {plots.MOST_LAYERS} of {count}. " if count > plots.MOST_LAYERS else ""
    components = plots.components_of(report.sensitivity)
    return f"Each quantized alone, all others in float. {shown}".strip() + _legend(components, "hollow")


def _legend(names: Sequence[str], other: str) -> str:
    """The part of a name that distinguishes one of several components or ports."""
    labels = [plots.component_label(name) for name in names]
    return f"; filled: {labels[0]}, {other}: {', '.join(labels[1:])}" if len(labels) > 1 else ""


def _marks(report: Report) -> str:
    names = [metric.value for metric in Metric if metric in report.reference]
    return f"Filled: {names[0]}, hollow: {' and '.join(names[1:])}. " if len(names) > 1 else ""


@dataclass(frozen=True)
class _Match:
    text: str
    reference: float
    low: float
    high: float
    spread: bool


@dataclass(frozen=True)
class _ShownImage:
    name: str
    source: str
    size: str
    matches: tuple[_Match, ...]
    dissent: tuple[str, ...]
    compared: int


def _shown(image: ImageMatches) -> _ShownImage:
    order = sorted(range(len(image.texts)), key=lambda index: (-image.reference[index], index))
    matches = []
    for index in order[:_TOP_MATCHES]:
        others = [probabilities[index] for probabilities in image.variants.values()]
        low, high = (min(others), max(others)) if others else (0.0, 0.0)
        matches.append(_Match(image.texts[index], image.reference[index], low, high, bool(others)))
    dissent = []
    for name in sorted(image.variants):
        probabilities = image.variants[name]
        best = max(range(len(image.texts)), key=lambda index: (probabilities[index], -index))
        if best != order[0]:
            dissent.append(f"{name} answers \u201c{image.texts[best]}\u201d")
    source, size = _thumbnail(image)
    return _ShownImage(image.name, source, size, tuple(matches), tuple(dissent), len(image.variants))


def _thumbnail(image: ImageMatches) -> tuple[str, str]:
    try:
        with Image.open(io.BytesIO(image.image)) as opened:
            width, height = opened.size
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        what = f"picture {image.name} cannot be opened ({error})"
        raise DataError(f"{what}; is the golden pack whole?") from error
    upright.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    out = io.BytesIO()
    upright.save(out, format="JPEG", quality=86)
    source = f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
    return source, f"{width}\u202f\u00d7\u202f{height}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _points(points: float) -> str:
    return f"{points:.2f}".replace("-", "\u2212") if round(points, 2) else "0.00"


def _loss(points: float) -> str:
    if not round(points, 2):
        return "no loss"
    return f"{abs(points):.2f} pp {'lost' if points > 0 else 'gained'}"


def _bound(points: float) -> str:
    """An upper limit, rounded up: beyond an allowance it never reads as within."""
    return f"{math.ceil(1000 * points - 1e-6) / 1000:.3f}".replace("-", "\u2212")


def _interval(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{_points(limits[0])} to {_points(limits[1])}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f}" if size_bytes < 10_000_000 else f"{size_bytes / 1e6:.1f}"


def _cosine(cosine: float) -> str:
    """As many digits as tell a cosine near 1 from 1."""
    return f"{cosine:.7f}" if cosine > 0.99995 else f"{cosine:.5f}"


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)
