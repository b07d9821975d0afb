"""What the pages of benchmarks share."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path


def prose(text: str) -> str:
    """A paragraph in lines of at most 118 characters."""
    return textwrap.fill(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False) + "\n"


def fill_place(page: Path, name: str, text: str) -> None:
    """Put text, which ends with a line break, between `<!-- name -->` and `<!-- /name -->` of a page.

    A page that has no such place stays as it is.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    found = page.read_text(encoding="utf-8")
    page.write_text(place.sub(lambda match: match[1] + text + match[2], found), encoding="utf-8")
