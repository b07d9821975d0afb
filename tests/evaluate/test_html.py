from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from pocketvl.errors import DataError
from pocketvl.evaluate.html import PictureMatches, render_html
from pocketvl.evaluate.report import Report
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


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    html = render_html(synthetic_report(), [picture()])
    page = Page(html)
    assert page.open == []
    assert page.counts["svg"] == 6
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


def test_what_fails_is_named_on_top() -> None:
    text = Page(render_html(synthetic_report(lost=5))).text
    assert "tflite-int8 fails the gate; 2 of 3 variants pass" in text
    assert "tflite-int8: match_hard dropped 2.500 pp, 1 pp allowed" in text


def test_without_task_data_parity_alone_is_told() -> None:
    html = render_html(without_tasks(synthetic_report()))
    page = Page(html)
    assert page.open == []
    assert "No task data was given, so parity alone was measured" in page.text
    assert page.counts["svg"] == 3  # two latencies and the cosines


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
    page = Page(render_html(dataclasses.replace(report, reference={}, variants=bare, data=None, notes=())))
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
        PictureMatches("a", b"", ("x", "y"), (1.0,))
