"""What report.html shows of devices."""

from __future__ import annotations

import dataclasses
import re

from pocketvl.evaluate.explained_ops import ExplainedOps, OpsAdvice, OpsRow
from pocketvl.evaluate.html import render_html
from pocketvl.evaluate.profile_plots import (
    Profile,
    accuracy_by_latency,
    devices_side_by_side,
    distributions,
    operator_bars,
    operator_colours,
    stage_bars,
    stage_colours,
    sustained_curves,
)
from pocketvl.evaluate.profiles_html import show_profiles
from pocketvl.evaluate.report import Report
from pocketvl.tasks.metrics import Metric
from tests.devices.profiles import BOARD, emulated, profile
from tests.evaluate.test_html import Page, quick, without_tasks
from tests.evaluate.worlds import synthetic_report

MEDIANS = {"tflite-int8": {1: 9.0, 4: 4.25}, "onnx-fp32": {1: 30.5}}
PI = profile(MEDIANS, loads={"tflite-int8": [4.0, 6.0]}, warnings=["it was <hot>"], throttled=True)
PHONE = profile(
    {"tflite-int8": {1: 7.5}}, machine=dataclasses.replace(BOARD, device="Phone | 2", mhz_max=2800.0)
)


def bare(report: Report | None = None) -> Report:
    """A report without plots of its own, which take the time."""
    return quick(without_tasks(report or synthetic_report()))


def test_a_page_without_profiles_says_nothing_of_devices() -> None:
    page = Page(render_html(bare()))
    assert "On devices" not in page.text
    assert "svg" not in page.counts


def test_devices_are_shown_with_their_figures_and_doubts() -> None:
    html = render_html(bare(), profiles={"pi5": PI, "phone": PHONE})
    page = Page(html)
    assert page.open == []
    assert page.counts["svg"] == 1 + 3 + 2  # side by side; bars, spread and load; bars and spread
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert "pi5: Example Board 1" in page.text
    assert "phone: Phone | 2" in page.text
    assert "Throttled yes" in page.text
    assert "Frequency ondemand, up to 2,800 MHz" in page.text
    assert "it was <hot>" in page.text
    assert "<hot>" not in html
    row = "tflite-int8 4 3.83 4.25 5.10 6.38 – 12.0 800 – 70 – 1.50"
    assert row in page.text
    assert "#0101" not in html
    assert not re.search(r"@import|url\((?!#)|https?://", html)


def test_the_same_profiles_give_the_same_bytes() -> None:
    profiles = {"pi5": PI, "phone": PHONE}
    assert render_html(bare(), profiles=profiles) == render_html(bare(), profiles=profiles)


def test_of_an_emulated_device_no_figure_is_shown() -> None:
    html = render_html(bare(), profiles={"qemu": emulated(PI)})
    page = Page(html)
    assert "Ran under emulation: tflite-int8, onnx-fp32." in page.text
    assert "svg" not in page.counts
    for figure in ("4.25", "30.5", "6.38", "3.83", "1.50", "800", "it was"):
        assert figure not in page.text
    both = show_profiles(bare(), {"qemu": emulated(PI), "phone": PHONE})
    assert both.together == ()
    assert [device.emulated for device in both.devices] == [True, False]


def test_names_of_files_that_look_alike_keep_their_pictures_apart() -> None:
    page = Page(render_html(bare(), profiles={"a b": PHONE, "a-b": PHONE, "<i>": PHONE}))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def seen(name: str = "pi5") -> Profile:
    return Profile(name, name, PI)


def bars(svg: str, colour: str) -> list[float]:
    """Widths of the filled rectangles of a colour, in the order in which they were drawn."""
    found = re.findall(rf'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*" [^>]*style="fill: {colour}', svg)
    return [float(right) - float(left) for left, right in found]


def test_stages_are_stacked_to_the_whole() -> None:
    colours = stage_colours([seen()])
    assert list(colours) == ["decode", "preprocess", "tokens", "image", "text", "post", "between them"]
    svg = stage_bars(seen(), colours)
    image, rest = bars(svg, r"var\(--series-4\)"), bars(svg, r"var\(--line\)")
    assert len(image) == len(rest) == 3
    for whole, part in zip(image, rest, strict=True):
        assert abs(part / whole - 0.1 / 0.5) < 0.02
    assert abs(image[0] / image[2] - 30.5 / 4.25) < 0.05  # onnx before tflite
    assert ">30.5<" in svg
    assert svg.index("onnx-fp32 ×1") < svg.index("tflite-int8 ×1") < svg.index("tflite-int8 ×4")


def test_a_tail_that_would_squeeze_all_else_is_cut_and_told() -> None:
    result = profile({"tflite-int8": {1: 10.0}}, samples=[9.0, 10.0, 11.0])
    variant = result.variants["tflite-int8"]
    total = variant.timings[0].stages["total"]
    far = dataclasses.replace(total, p99=900.0, max=950.0)
    timing = dataclasses.replace(variant.timings[0], stages={**variant.timings[0].stages, "total": far})
    variants = {"tflite-int8": dataclasses.replace(variant, timings=(timing,))}
    svg = distributions(Profile("far", "far", dataclasses.replace(result, variants=variants)))
    assert ">900 →<" in svg
    assert "→" not in distributions(Profile("near", "near", result))
    bare = distributions(Profile("near", "near", profile({"tflite-int8": {1: 10.0}})))
    with_runs = distributions(Profile("near", "near", result))
    assert with_runs.count("<use") == bare.count("<use") + 3


def test_frequency_and_temperature_have_curves_where_they_are_known() -> None:
    svg = sustained_curves(seen())
    assert svg is not None
    assert all(label in svg for label in ("median, ms", "MHz", "°C", "tflite-int8 ×4"))
    load = PI.sustained[0]
    windows = tuple(dataclasses.replace(each, mhz=None, temperature_c=None) for each in load.windows)
    unknown = dataclasses.replace(PI, sustained=(dataclasses.replace(load, windows=windows),))
    plain = sustained_curves(Profile("x", "x", unknown))
    assert plain is not None
    assert "MHz" not in plain
    assert sustained_curves(Profile("phone", "phone", PHONE)) is None


def test_devices_stand_side_by_side_at_their_quickest_thread_count() -> None:
    both = [seen(), Profile("phone", "phone", PHONE)]
    svg = devices_side_by_side(both, {"pi5": "#010107", "phone": "#010108"})
    assert svg is not None
    assert ">4.25  ×4<" in svg
    assert ">7.5  ×1<" in svg
    assert devices_side_by_side(both[:1], {"pi5": "#010107"}) is None


def test_accuracy_is_drawn_over_the_latency_of_a_device() -> None:
    report = synthetic_report()
    svg = accuracy_by_latency(report, Metric.MATCH_HARD, seen())
    assert svg is not None
    assert "tflite-int8 ×4" in svg
    assert "onnx-fp32 ×1" in svg
    assert "tflite-fp32" not in svg  # was not measured there
    assert accuracy_by_latency(report, Metric.ASK, seen()) is None


def test_variants_of_unknown_names_are_shown_too() -> None:
    odd = profile({"npu-int3": {1: 3.0}}, loads={"npu-int3": [3.0, 3.0]})
    assert "npu-int3 ×1" in render_html(bare(), profiles={"odd": odd})


def test_what_the_operators_take_is_drawn_and_said() -> None:
    rows = (OpsRow("tflite-int8 image ×1", {"softmax": 1.5, "<layout>": 0.5}),)
    said = OpsAdvice("tflite-int8", "takes 2 ms, most of it in <softmax>.", ("30 % are <copies>",))
    explained = {"phone": ExplainedOps(("softmax", "<layout>"), rows, (said,))}
    html = render_html(bare(), profiles={"pi5": PI, "phone": PHONE}, explained=explained)
    page = Page(html)
    assert page.open == []
    assert page.counts["svg"] == 1 + 3 + 2 + 1
    assert "What the graphs' time goes to" in page.text
    assert "tflite-int8 takes 2 ms, most of it in <softmax>." in page.text
    assert "30 % are <copies>" in page.text
    assert "<softmax>" not in html
    assert "<layout>" not in html
    (pi5, phone) = show_profiles(bare(), {"pi5": PI, "phone": PHONE}, explained).devices
    assert pi5.advice == ()
    assert phone.advice == (said,)
    hidden = show_profiles(bare(), {"phone": emulated(PHONE)}, explained).devices[0]
    assert (hidden.figures, hidden.advice) == ((), ())


def test_more_classes_of_operators_than_colours_are_drawn() -> None:
    names = tuple(f"class {index}" for index in range(12))
    explained = ExplainedOps(names, (OpsRow("graph", dict.fromkeys(names, 1.0)),), ())
    colours = operator_colours(explained)
    assert len(set(colours.values())) == 8
    assert "12" in operator_bars(Profile("p", "p", PHONE), explained)
