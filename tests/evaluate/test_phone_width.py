"""In a real browser, nothing of the page runs over its border at the width of a phone or of a desktop."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pocketvl.evaluate.html import render_html
from tests.devices.profiles import emulated, profile
from tests.evaluate.worlds import picture, synthetic_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# A card's contents, a figure's and a picture's must end where it ends, and the page where the screen does.
MEASURE = """
<script>
function measure(frame) {
  const page = frame.contentDocument, beyond = [];
  for (const box of page.querySelectorAll(".card, figure, .picture, .device, .facts, .doubts"))
    for (const part of box.querySelectorAll("*")) {
      if (part.closest(".scroll") || part.closest("svg") !== null && part.tagName !== "svg") continue;
      if (part.getBoundingClientRect().right > box.getBoundingClientRect().right + 0.5)
        beyond.push(box.className + ": " + part.textContent.slice(0, 40));
    }
  const root = page.documentElement, cards = page.querySelectorAll(".card").length;
  return {beyond, cards, wide: root.scrollWidth - root.clientWidth};
}
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
};
</script>
"""


def measured(pages: Sequence[tuple[str, int]], folder: Path) -> Any:
    """What runs over, as a browser lays pages out in frames of a width in CSS pixels."""
    frames = "".join(
        f'<iframe scrolling=no style="border:0;width:{width}px;height:900px" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for page, width in pages
    )
    file = folder / "frames.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{frames}{MEASURE}", encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    command += [f"--user-data-dir={folder / 'browser'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    found = re.search(r"<pre>(\[.*\])</pre>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium, as Debian's package of that name")
def test_nothing_runs_over_its_border(tmp_path: Path) -> None:
    seen = profile(
        {"tflite-int8": {1: 9.0, 4: 4.25}}, loads={"tflite-int8": [4.0, 6.0]}, warnings=["hot " * 30]
    )
    profiles = {"pi5": seen, "a-very-long-name-of-a-device-in-the-next-room": seen, "qemu": emulated(seen)}
    page = render_html(synthetic_report(lost=5), [picture()], profiles=profiles)
    narrow = page.replace("minmax(min(100%, 215px), 1fr)", "70px")
    wide = page.replace("main { max-width: 1280px;", "main { width: 1000px;")
    assert page not in (narrow, wide)
    widths = (360, 400, 760, 1280)
    *found, narrow_cards, wide_page = measured(
        [*((page, width) for width in widths), (narrow, 400), (wide, 400)], tmp_path
    )
    for width, told in zip(widths, found, strict=True):
        assert told == {"beyond": [], "cards": 3, "wide": 0}, width
    assert narrow_cards["beyond"]
    assert wide_page["wide"] > 0
