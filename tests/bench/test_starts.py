"""Starts of commands: what -X importtime tells is counted by package, and a failing command is one line."""

from __future__ import annotations

import click
import pytest

from bench.starts import imported, run, time_in_turns

TOLD = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |   numpy.core
import time:      2000 |       2100 | numpy
import time:       500 |       2600 | json.decoder
import time:      9000 |       9000 | PIL
"""


def test_modules_are_counted_and_heavy_packages_told_by_their_own_time() -> None:
    assert imported(TOLD) == (4, {"PIL": 9.0, "numpy": 2.1})


def test_what_python_tells_today_is_understood() -> None:
    modules, heavy = imported(run(["-X", "importtime", "-c", "import numpy"]))
    assert modules > 50
    assert set(heavy) == {"numpy"}
    assert heavy["numpy"] > 1


def test_every_round_starts_every_command() -> None:
    times = time_in_turns({"quick": ["-c", ""], "slow": ["-c", "import time; time.sleep(0.3)"]}, 2)
    assert [len(found) for found in times.values()] == [2, 2]
    assert min(times["slow"]) >= 300


def test_a_command_that_fails_is_told_of_in_one_line() -> None:
    with pytest.raises(click.ClickException, match="no such luck"):
        run(["-c", "raise SystemExit('no such luck')"])
