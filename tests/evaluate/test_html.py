from __future__ import annotations

import base64
import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.evaluate.compare import reference_metrics, variant_metrics
from pocketvl.evaluate.html import ImageMatches, render_html
from pocketvl.evaluate.plots import pareto_front, search_front
from pocketvl.evaluate.report import Fallback, Report, SearchReport, SearchTrial, Sensitivity
from pocketvl.evaluate.report_json import report_from_json, report_to_json
from pocketvl.select.gate import judge_report, parse_gate
from pocketvl.tasks.labels import LabelTask
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl.tasks.statistics import paired_interval
from pocketvl_runtime.manifest import Engine, Precision
from tests.evaluate.worlds import picture, synthetic_report

VOID = {"meta", "br", "img", "hr", "input", "link", "path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Collects tags, links and text, and checks that every tag is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def without_tasks(report: Report) -> Report:
    variants = {name: dataclasses.replace(each, metrics={}) for name, each in report.variants.items()}
    return dataclasses.replace(report, reference={}, variants=variants, data=None)


def quick(report: Report) -> Report:
    """The same report with fewer plots, which take the time."""
    variants = {
        name: dataclasses.replace(each, parity={}, latency_ms={}) for name, each in report.variants.items()
    }
    return dataclasses.replace(report, variants=variants, sensitivity=())


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    html = render_html(synthetic_report(), [picture()])
    page = Page(html)
    assert page.open == []
    assert page.counts["svg"] == 7
    assert page.counts["img"] == 1
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert not re.search(r"@import|url\((?!#)|https?://", html)
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))


def test_the_page_says_what_was_measured() -> None:
    text = Page(render_html(synthetic_report(), [picture("wall.png")])).text
    assert "All 3 variants pass the gate" in text
    assert "The smallest that passes is tflite-int8 with 2.00 MB, 25 % of tflite-fp32" in text
    assert "it loses 0.50 pp (95 % CI of the loss" in text
    assert "80.0 %" in text  # the reference
    assert "0.25" in text  # latency over fp32
    assert text.count("Example CPU 9000") >= 3
    assert "avx2" in text
    assert "classify: not measured" in text
    assert "wall.png" in text
    assert "tflite-int8 answers" in text


def test_training_curves_are_shown_where_there_are_some() -> None:
    png = b"\x89PNG curves"
    title = "How the checkpoint learned"
    assert title not in render_html(quick(synthetic_report()))
    page = render_html(quick(synthetic_report()), training=png)
    assert title in page
    assert base64.b64encode(png).decode() in page


def test_what_fails_is_named_on_top() -> None:
    text = Page(render_html(synthetic_report(lost=5))).text
    assert "tflite-int8 fails the gate; 2 of 3 variants pass" in text
    limit = math.ceil(1e5 * paired_interval(5, 0, 200)[1]) / 1000
    bound = f"at most {limit:.3f} pp with 95 % confidence (n = 200)"
    assert f"tflite-int8: match_hard dropped 2.500 pp, {bound}; 1 pp allowed" in text


def test_a_loss_that_is_not_proved_is_told_apart_from_one_that_is_too_large() -> None:
    html = render_html(quick(synthetic_report(lost=4, samples=600)))
    text = Page(html).text
    assert "tflite-int8 is not proved; 2 of 3 variants pass" in text
    assert "tflite-int8: match_hard is not proved: dropped 0.667 pp" in text
    assert html.count("? not proved") == 2  # on its card and in the table
    assert "✕ fails" not in text
    low, high = paired_interval(4, 0, 600)
    assert low < 0.01 < high
    assert f"95 %: at most {math.ceil(1e5 * high) / 1000:.3f} of 1 pp" in text
    assert "these samples cannot prove it" not in text


def test_a_variant_that_passes_by_its_estimate_alone_says_so() -> None:
    assert Page(render_html(quick(synthetic_report()))).text.count("these samples cannot prove it") == 3
    assert "these samples cannot prove it" not in Page(render_html(quick(synthetic_report(0, 2000)))).text


def test_an_upper_limit_never_reads_as_within_an_allowance_that_it_is_beyond() -> None:
    report = quick(synthetic_report(lost=5, samples=2000))
    variant = report.variants["tflite-int8"]
    assert variant.gate is not None
    near = dataclasses.replace(variant.metrics[Metric.MATCH_HARD], drop_ci95=(-0.1, 1.0001))
    variant = dataclasses.replace(variant, metrics={Metric.MATCH_HARD: near})
    html = render_html(dataclasses.replace(report, variants={variant.name: variant}))
    assert "95 %: at most 1.001 of 1 pp" in Page(html).text


def test_what_went_back_to_a_higher_precision_is_shown_with_what_it_bought() -> None:
    report = quick(synthetic_report())
    variant = report.variants["tflite-int8"]
    assert variant.gate is not None
    limits = {Metric.MATCH_HARD: 1.41}, {Metric.MATCH_HARD: 0.8}
    fallbacks = (
        Fallback(("layers.1.fc<2>",), "image_encoder", Precision.FP32, 120_000, *limits),
        Fallback(("layers.0.q", "layers.0.k"), "text_encoder", Precision.INT8, 1_500),
    )
    variant = dataclasses.replace(variant, gate=dataclasses.replace(variant.gate, fallbacks=fallbacks))
    page = Page(render_html(dataclasses.replace(report, variants={variant.name: variant})))
    assert page.open == []
    assert "layers.1.fc<2> image fp32 120.0 1.410 → 0.800 pp" in page.text
    assert "layers.0.q layers.0.k text int8 1.5 – → –" in page.text
    assert "Fallbacks" not in Page(render_html(report)).text


def layers(count: int) -> tuple[Sensitivity, ...]:
    components = ("image_encoder", "text_encoder")
    return tuple(
        Sensitivity(
            f"encoder.layers.{i}.self_attn.{{k_proj,q_proj}}", 8, None, components[i % 2], (i + 1) * 1e-4
        )
        for i in range(count)
    )


def test_the_worst_layers_are_drawn_and_all_are_listed() -> None:
    report = dataclasses.replace(quick(without_tasks(synthetic_report())), sensitivity=layers(40))
    html = render_html(report)
    page = Page(html)
    drawn = html[html.index('id="sensitivity-') : html.index("</svg>", html.index('id="sensitivity-'))]
    assert page.open == []
    names = re.findall(r"layers\.(\d+)\.self_attn", drawn)
    assert [int(name) for name in names] == list(range(39, 9, -1))
    assert "The worst 30 of 40" in page.text
    listed = html[html.index("<summary>Sensitivity") :]
    assert len(re.findall(r"layers\.\d+\.self_attn", listed)) == 40
    assert "4.0e-03" in listed
    few = Page(render_html(dataclasses.replace(report, sensitivity=layers(3))))
    assert "The worst 30" not in few.text
    none = Page(render_html(dataclasses.replace(report, sensitivity=())))
    assert "Sensitivity of the layers" not in none.text


def test_layers_measured_by_answers_alone_are_drawn_in_points() -> None:
    rows = (Sensitivity("b", 8, 0.25), Sensitivity("a", 8, -0.1))
    html = render_html(dataclasses.replace(quick(without_tasks(synthetic_report())), sensitivity=rows))
    drawn = html[html.index('id="sensitivity-') :]
    assert "loss, percentage points" in drawn
    assert drawn.index(">b<") < drawn.index(">a<")
    assert "0.25" in drawn


SEARCHED = (
    (0.70, 1_000_000), (0.60, 1_050_000), (0.80, 1_150_000), (0.75, 1_190_000), (0.85, 1_500_000),
)  # fmt: skip


def searched(report: Report, **changed: object) -> Report:
    """The report with a search of five trials, of which three are on the front and one beyond the budget."""
    search = SearchReport(
        engine=Engine.TFLITE,
        budget="size",
        limit=1.2e6,
        samples=500,
        sampler="tpe",
        trials=tuple(SearchTrial(n, score, size, 2.0 + n) for n, (score, size) in enumerate(SEARCHED)),
        chosen=2,
        bits={
            "image_encoder/layers.0.attn.k+layers.0.attn.q": 8,
            "image_encoder/layers.1.fc<1>": 4,
            "image_encoder/layers.2.fc": 4,
            "text_encoder/k+q": 8,
            "text_encoder/a.x+b.y": 8,
        },
    )
    return dataclasses.replace(report, search=dataclasses.replace(search, **changed))  # type: ignore[arg-type]


def circles(svg: str) -> tuple[int, int]:
    """How many filled and hollow marks of trials there are."""
    marks = re.findall(r'<use [^>]*style="(fill[^"]*)"', svg)
    hollow = sum("fill-opacity: 0;" in style for style in marks)
    return sum("fill: var(--ink)" not in style for style in marks) - hollow, hollow


def numbers(path: str) -> list[tuple[float, float]]:
    found = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)
    return [(float(x), float(y)) for x, y in found]


def test_a_search_is_plotted_with_its_budget_its_front_and_the_chosen_one() -> None:
    svg = search_front(searched(synthetic_report()))
    assert svg is not None
    assert circles(svg) == (4, 1)
    assert svg.count(">chosen<") == svg.count(">budget 1.2 MB<") == 1
    assert "graph files, MB" in svg
    lines = re.findall(r'<path d="([^"]*)" clip-path[^>]*style="([^"]*)"', svg)
    dashed = [numbers(d) for d, style in lines if "stroke-dasharray" in style]
    assert len(dashed) == 1
    assert dashed[0][0][0] == dashed[0][1][0]  # upright
    front = [numbers(d) for d, style in lines if "var(--tflite)" in style]
    assert len(front) == 1
    turns = list(zip(front[0], front[0][1:], strict=False))
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in turns)  # stepped
    heights = list(dict.fromkeys(y for _, y in front[0]))
    assert len(heights) == 3
    assert heights == sorted(heights, reverse=True)  # SVG counts downwards


def test_a_search_by_latency_is_plotted_over_latency() -> None:
    svg = search_front(searched(synthetic_report(), budget="latency_ms", limit=3.5, engine=Engine.ONNX))
    assert svg is not None
    assert circles(svg) == (2, 3)
    assert ">budget 3.5 ms<" in svg
    assert "one picture and one text, ms" in svg
    assert "var(--onnx)" in svg
    assert "var(--tflite)" not in svg


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    points = [(3.0, 0.5), (1.0, 0.2), (1.0, 0.3), (2.0, 0.3), (4.0, 0.4), (3.0, 0.6)]
    assert pareto_front(points) == [(1.0, 0.3), (3.0, 0.6)]


def test_the_page_says_how_bits_were_searched_and_which_were_chosen() -> None:
    html = render_html(searched(quick(without_tasks(synthetic_report()))))
    page = Page(html)
    assert page.open == []
    assert page.counts["svg"] == 1
    assert (
        "TPE tried 5 choices for tflite; 500 samples that do not judge chose one within 1.2 MB" in page.text
    )
    assert "image 4 2 layers.1.fc<1> layers.2.fc image 8 1 layers.0.attn.{k,q}" in page.text
    assert "text 8 2 {k,q} a.x + b.y" in page.text
    assert "fc<1>" not in html  # escaped


def test_a_report_without_a_search_shows_nothing_of_one() -> None:
    html = render_html(quick(without_tasks(synthetic_report())))
    assert "svg" not in Page(html).counts
    assert "search" not in Page(html).text
    unfinished = Page(render_html(searched(quick(without_tasks(synthetic_report())), trials=(), bits={})))
    assert unfinished.open == []
    assert "svg" not in unfinished.counts


def test_without_task_data_parity_alone_is_told() -> None:
    html = render_html(without_tasks(synthetic_report()))
    page = Page(html)
    assert page.open == []
    assert "No task data was given, so parity alone was measured" in page.text
    assert page.counts["svg"] == 4  # two latencies, the cosines and the layers


def test_a_report_with_nothing_in_it_still_renders() -> None:
    report = synthetic_report()
    bare = {
        name: dataclasses.replace(
            each,
            metrics={},
            parity={},
            latency_ms={},
            peak_rss_bytes=None,
            ops={},
            gate=None,
            notes=(),
            files={},
        )
        for name, each in report.variants.items()
    }
    page = Page(
        render_html(
            dataclasses.replace(report, reference={}, variants=bare, data=None, notes=(), sensitivity=())
        )
    )
    assert page.open == []
    assert "Measured, not yet judged" in page.text
    assert "svg" not in page.counts


def test_texts_from_outside_are_escaped() -> None:
    html = render_html(synthetic_report(), [picture("<i>.png")])
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>something</b>" not in html
    assert "<i>.png" not in html


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_html(synthetic_report(), [picture()]) == render_html(synthetic_report(), [picture()])


def test_plots_take_their_colours_from_the_page() -> None:
    html = render_html(synthetic_report())
    assert "var(--onnx)" in html
    assert "var(--tflite)" in html
    assert "#0101" not in html


def test_pictures_are_shown_small_and_bad_ones_are_refused() -> None:
    html = render_html(synthetic_report(), [picture(size=(3000, 2000))])
    assert "3000\u202f\u00d7\u202f2000" in html
    assert len(html) < 600_000
    bad = dataclasses.replace(picture("bad.png"), image=b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        render_html(synthetic_report(), [bad])
    with pytest.raises(DataError, match="equally many"):
        ImageMatches("a", b"", ("x", "y"), (1.0,))


def answering_report() -> Report:
    """Of a model with one component, which answers questions of two types."""
    right = np.array([True] * 150 + [False] * 50)
    kinds = {"colour": right[:160], "count": right[160:]}
    outcome = TaskOutcome(Metric.ASK, right, kinds, {"colour": 0.4, "count": 0.25})
    answers = TaskOutcomes({Metric.ASK: outcome}, ())
    report = synthetic_report()
    variants = {
        name: dataclasses.replace(
            variant,
            metrics=variant_metrics(answers, answers),
            parity={"fusion.logits": variant.parity["image_encoder.embedding"]},
            latency_ms={"fusion": variant.latency_ms["image"]},
            ops={"fusion": {"MatMul": 3}},
            files={},
        )
        for name, variant in report.variants.items()
    }
    sensitivity = (Sensitivity("layer.0.fc", 8, None, "fusion", 1e-4),)
    report = dataclasses.replace(
        report, reference=reference_metrics(answers), variants=variants, sensitivity=sensitivity
    )
    return judge_report(report, parse_gate("", LabelTask.metrics))


def test_a_model_of_one_component_that_answers_has_its_page_too() -> None:
    report = answering_report()
    assert report_from_json(report_to_json(report)) == report
    text = Page(render_html(report)).text
    assert "All 3 variants pass the gate" in text
    assert "ask 75.0 %" in text
    assert "Latency of the fusion graph" in text
    assert "fusion ms, 1 thr." in text
    assert "centred cosine fusion" in text
    assert "fusion logits" in text
    assert "the same answer to every question" in text
    assert "image" not in text


def test_variants_of_every_engine_and_precision_are_shown_and_plotted() -> None:
    report = synthetic_report()
    like = report.variants["tflite-int8"]
    copies = (dataclasses.replace(like, engine=e, precision=p) for e in Engine for p in Precision)
    every = dataclasses.replace(report, variants={variant.name: variant for variant in copies})
    page = Page(render_html(every))
    assert len(every.variants) == len(Engine) * len(Precision)
    assert all(name in page.text for name in every.variants)
