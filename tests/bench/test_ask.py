"""The table of a card: rates by type of question, intervals, and what constant answers come to."""

from __future__ import annotations

import numpy as np

from bench.ask import table
from pocketvl.tasks.metrics import Metric, TaskOutcome


def test_types_add_up_and_have_wilson_intervals() -> None:
    colour, count = np.arange(10) < 9, np.arange(30) < 6
    found = TaskOutcome(
        Metric.ASK,
        np.concatenate([colour, count]),
        {"colour": colour, "count": count},
        {"colour": 0.2, "count": 0.6},
    )
    assert table(found).splitlines() == [
        "| questions | n | right | 95 % CI | constant |",
        "|---|---|---|---|---|",
        "| all | 40 | 37.5 % | 24.2 to 53.0 | 50.0 % |",
        "| colour | 10 | 90.0 % | 59.6 to 98.2 | 20.0 % |",
        "| count | 30 | 20.0 % | 9.5 to 37.3 | 60.0 % |",
    ]
