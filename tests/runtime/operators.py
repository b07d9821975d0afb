"""What every bench must tell of the operators of two encoders."""

from __future__ import annotations

from collections.abc import Sequence

from pocketvl_runtime.op_result import GraphOps


def check_encoders(graphs: Sequence[GraphOps]) -> None:
    """Both encoders at one and at two threads, each with its time and with operators."""
    assert [(each.component, each.threads) for each in graphs] == [
        ("image_encoder", 1),
        ("text_encoder", 1),
        ("image_encoder", 2),
        ("text_encoder", 2),
    ]
    for graph in graphs:
        assert graph.reason is None
        assert graph.plain_ms > 0
