"""docs/QUANTIZATION.md says of every grid of weights whether a file of an engine holds it, and is right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketvl.errors import LoweringError
from pocketvl.lower.backends import BACKENDS
from pocketvl.lower.forms import form_of
from pocketvl.network.specification import (
    ACTIVATION_8,
    LEAST_BITS,
    MOST_BITS,
    Granularity,
    GridSpec,
    LayerSpec,
    Mode,
    Scheme,
)
from pocketvl_runtime.manifest import Engine

PAGE = Path(__file__).parents[2] / "docs" / "QUANTIZATION.md"
COLUMNS = ("bits", "mode", "one scale for", "scheme", *(BACKENDS[engine].title for engine in Engine))
GRANULARITIES = {each.value.removeprefix("per_"): each for each in Granularity}


def rows() -> list[dict[str, str]]:
    """The lines of the first table, by column."""
    lines = PAGE.read_text(encoding="utf-8").split("\n| bits ", 1)[1].split("\n\n", 1)[0].splitlines()
    head, _, *rest = (line.strip("| ").split(" | ") for line in (f"| bits {lines[0]}", *lines[1:]))
    assert [cell.strip("| ") for cell in head] == list(COLUMNS)
    return [dict(zip(COLUMNS, row, strict=True)) for row in rest]


def specs_of(row: dict[str, str]) -> Iterator[LayerSpec]:
    """What a line is about."""
    bits, modes, granularities, schemes = (row[name].split(", ") for name in COLUMNS[:4])
    for width, mode, granularity, scheme in itertools.product(bits, modes, granularities, schemes):
        shared = GRANULARITIES[granularity]
        size = 32 if shared is Granularity.PER_GROUP else None
        weights = GridSpec(int(width), Scheme(scheme), shared, size)
        is_static = mode == Mode.STATIC
        grids = (ACTIVATION_8, ACTIVATION_8) if is_static else (None, None)
        yield LayerSpec(Mode(mode.replace("-", "_")), weights, *grids)


def test_every_grid_is_in_one_line() -> None:
    found = [spec for row in rows() for spec in specs_of(row)]
    everything = (MOST_BITS - LEAST_BITS + 1) * len(Mode) * len(Scheme) * len(Granularity)
    assert len(found) == len(set(found)) == everything


@pytest.mark.parametrize("row", rows(), ids=lambda row: ", ".join([row[name] for name in COLUMNS[:4]]))
def test_files_hold_what_a_line_says(row: dict[str, str]) -> None:
    for engine, backend in BACKENDS.items():
        said = row[backend.title]
        assert said.startswith(("yes: ", "no: "))
        for spec in specs_of(row):
            try:
                ships = form_of("layer", spec) in backend.forms
            except LoweringError:
                ships = False
            assert ships == said.startswith("yes: "), (engine, spec)


def test_every_reason_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    reasons = {part.split("]")[0] for row in rows() for cell in row.values() for part in cell.split("[")[1:]}
    assert {"bits", "policy", "INT2", "MatMulInteger"} <= reasons
    explained = {line.split(": ")[0] for line in page.splitlines() if line.startswith("- [")}
    for reason in reasons:
        assert any(f"[{reason}]" in each for each in explained), reason
