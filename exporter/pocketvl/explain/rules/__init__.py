"""The rules by which faults of graphs are named: each a function of one explained graph, or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pocketvl.explain.explained import ExplainedGraph
from pocketvl.explain.finding import Finding
from pocketvl.explain.rules import kernels, overhead, placement, precision

Rule = Callable[[ExplainedGraph], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    precision.conversions,
    precision.unpacked_weights,
    precision.float_linears,
    precision.half_stored,
    precision.float_islands,
    precision.repeated_quantization,
    precision.slow_integers,
    placement.outside_delegate,
    placement.partitions,
    kernels.memory_bound,
    kernels.slow_products,
    kernels.slow_ops,
    kernels.other_work,
    kernels.dominant_op,
    overhead.layout,
    overhead.lookups,
    overhead.decomposed_activation,
    overhead.control_flow,
    overhead.tiny_ops,
)
"""Those that look at one graph at one thread count."""
