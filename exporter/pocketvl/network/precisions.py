"""The table of precisions: what weights are stored as, and how each kind of layer is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from pocketvl.network.specification import (
    INT2_DYNAMIC,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    Granularity,
    LayerSpec,
    Scheme,
)
from pocketvl_runtime.manifest import Precision


class Storage(StrEnum):
    """The storage type of a graph's weights, which decides how the graph is written.

    Float32: as it is exported. Float16: the exported graph, its weights cast. Integers: the exported graph
    with integers written into it.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INTEGERS = "integers"


@dataclass(frozen=True)
class WeightGrids:
    """What may be chosen of the grids that a precision has for weights.

    Attributes:
        group_size: 32, 64 or 128 weights of an output channel, where it has them in groups.
        zero_points: each group of 4-bit weights has a zero point; groups of 2 bits always have.
        per_tensor: the 8-bit weights of a layer share one scale, instead of those of a channel.
    """

    group_size: int = 32
    zero_points: bool = False
    per_tensor: bool = False


@dataclass(frozen=True)
class LayerPlan:
    """How a precision quantizes each kind of layer; whatever else a model holds stays in float.

    The residual stream, LayerNorm, Softmax and products of two activations are no layer's input or output
    weights and are not touched: that is where static int8 loses answers.

    Attributes:
        linear: where its weights are in groups, of linears whose inputs the group size divides; others are
            quantized as in the first fallback that has none.
        output: the linear that gives the model's output. Dynamic: nothing after it makes up for the steps
            of a grid that is as wide as all embeddings, while they differ by little.
        convolution: a convolution.
        table: a token table, of which rows are looked up.
    """

    linear: LayerSpec
    output: LayerSpec = INT8_DYNAMIC
    convolution: LayerSpec = INT8_STATIC
    table: LayerSpec = INT8_TABLE

    def with_weights(self, grids: WeightGrids) -> LayerPlan:
        """The same with other grids of weights."""

        def changed(spec: LayerSpec) -> LayerSpec:
            weights = spec.weights
            if weights.granularity is Granularity.PER_GROUP:
                scheme = Scheme.AFFINE if grids.zero_points else weights.scheme
                weights = replace(weights, group_size=grids.group_size, scheme=scheme)
            elif grids.per_tensor:
                weights = replace(weights, granularity=Granularity.PER_TENSOR)
            return replace(spec, weights=weights)

        return LayerPlan(*map(changed, (self.linear, self.output, self.convolution, self.table)))


@dataclass(frozen=True)
class PrecisionPlan:
    """One precision.

    Attributes:
        storage: of its weights.
        layers: how layers are quantized; None in float, and where a search chose for each layer.
        base: of layers that a search left alone; None unless a search chooses.
        fallback: the precision that a layer is moved to first where a variant fails the gate; None where
            there is nothing higher, or nothing to move.
        is_trainable: whether quantization-aware training trains for it.
        search_bits: the bits that a bit search knows it by; None where it does not choose it.
    """

    storage: Storage
    layers: LayerPlan | None = None
    base: Precision | None = None
    fallback: Precision | None = None
    is_trainable: bool = False
    search_bits: int | None = None


PLANS: Mapping[Precision, PrecisionPlan] = MappingProxyType(
    {
        Precision.FP32: PrecisionPlan(Storage.FLOAT32, search_bits=32),
        Precision.FP16: PrecisionPlan(Storage.FLOAT16),
        Precision.INT8: PrecisionPlan(
            Storage.INTEGERS,
            LayerPlan(INT8_STATIC),
            fallback=Precision.INT8DYN,
            is_trainable=True,
            search_bits=8,
        ),
        Precision.INT8DYN: PrecisionPlan(
            Storage.INTEGERS, LayerPlan(INT8_DYNAMIC), fallback=Precision.FP32, is_trainable=True
        ),
        Precision.INT4: PrecisionPlan(
            Storage.INTEGERS,
            LayerPlan(INT4_DYNAMIC),
            fallback=Precision.INT8,
            is_trainable=True,
            search_bits=4,
        ),
        Precision.INT2: PrecisionPlan(
            Storage.INTEGERS,
            LayerPlan(INT2_DYNAMIC),
            fallback=Precision.INT4,
            is_trainable=True,
            search_bits=2,
        ),
        Precision.MIXED: PrecisionPlan(Storage.INTEGERS, base=Precision.INT8),
    }
)

QUANTIZED = tuple(precision for precision, plan in PLANS.items() if plan.layers is not None)
"""Precisions that quantize all layers by one plan."""


def weight_bits(precision: Precision) -> int:
    """Of a linear's weights in a precision that is quantized by one plan, or in fp32 or fp16."""
    plan = PLANS[precision]
    if plan.layers is not None:
        return plan.layers.linear.weights.bits
    return 16 if plan.storage is Storage.FLOAT16 else 32
