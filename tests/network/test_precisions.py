"""Every precision has a plan and tolerances, and what the plans say fits together."""

from __future__ import annotations

import pytest

from pocketvl.network.precisions import PLANS, QUANTIZED, Storage
from pocketvl.network.specification import Granularity, Mode
from pocketvl.network.tolerances import DEFAULT_PARITY
from pocketvl_runtime.manifest import Precision


def test_every_precision_has_a_plan_and_tolerances() -> None:
    assert list(PLANS) == list(Precision)
    assert set(DEFAULT_PARITY) == set(Precision)


@pytest.mark.parametrize("precision", Precision)
def test_integers_are_stored_where_layers_are_quantized_or_a_search_chose(precision: Precision) -> None:
    plan = PLANS[precision]
    is_integer = plan.layers is not None or plan.base is not None
    assert (plan.storage is Storage.INTEGERS) == is_integer == precision.multiplies_integers
    assert plan.layers is None or plan.base is None
    assert plan.base is None or plan.base in QUANTIZED


@pytest.mark.parametrize("precision", QUANTIZED)
def test_fallbacks_lead_to_float_and_never_to_fewer_bits(precision: Precision) -> None:
    path = [precision]
    while PLANS[path[-1]].layers is not None:
        fallback = PLANS[path[-1]].fallback
        assert fallback is not None
        assert fallback not in path
        path.append(fallback)
    assert path[-1] is Precision.FP32
    plans = [PLANS[each].layers for each in path]
    bits = [plan.linear.weights.bits for plan in plans if plan is not None]
    assert bits == sorted(bits)


def test_int4_falls_back_by_way_of_static_and_dynamic_int8() -> None:
    assert PLANS[Precision.INT4].fallback is Precision.INT8
    assert PLANS[Precision.INT8].fallback is Precision.INT8DYN
    assert PLANS[Precision.INT8DYN].fallback is Precision.FP32


@pytest.mark.parametrize("precision", QUANTIZED)
def test_groups_have_a_fallback_for_what_they_do_not_divide(precision: Precision) -> None:
    layers, fallback = PLANS[precision].layers, PLANS[precision].fallback
    assert layers is not None
    assert layers.table.mode is Mode.WEIGHT_ONLY
    while layers is not None and layers.linear.weights.granularity is Granularity.PER_GROUP:
        assert fallback is not None
        layers, fallback = PLANS[fallback].layers, PLANS[fallback].fallback
    assert layers is not None
    assert layers.linear.weights.granularity is Granularity.PER_CHANNEL


def test_a_search_knows_each_width_by_one_precision() -> None:
    bits = {plan.search_bits: each for each, plan in PLANS.items() if plan.search_bits is not None}
    assert bits == {2: Precision.INT2, 4: Precision.INT4, 8: Precision.INT8, 32: Precision.FP32}
    for width, precision in bits.items():
        layers = PLANS[precision].layers
        assert (32 if layers is None else layers.linear.weights.bits) == width
