"""Variants that do not fit into memory together are timed in several benches, which give one result."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pocketvl.devices.groups import groups_of, merged
from tests.devices.profiles import profile

PEAKS = {"a": 5, "b": 5, "c": 20, "d": 1}


def test_all_take_turns_where_memory_allows() -> None:
    everything = [(("a", "b", "c", "d"), (1, 2))]
    assert groups_of(PEAKS, (1, 2), None) == everything
    assert groups_of(PEAKS, (1, 2), 62) == everything


def test_thread_counts_and_then_variants_are_parted() -> None:
    assert groups_of(PEAKS, (1, 2), 31) == [(("a", "b", "c", "d"), (1,)), (("a", "b", "c", "d"), (2,))]
    assert groups_of(PEAKS, (1,), 12) == [(("a", "b"), (1,)), (("c",), (1,)), (("d",), (1,))]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1),
    st.lists(st.integers(1, 4), min_size=1, unique=True),
    st.integers(0, 30),
)
def test_every_variant_is_timed_once_with_every_count(
    peaks: dict[str, int], threads: list[int], most: int
) -> None:
    groups = groups_of(peaks, threads, most)
    timed = [(name, count) for names, counts in groups for name in names for count in counts]
    assert sorted(timed) == sorted((name, count) for name in peaks for count in threads)
    for names, counts in groups:
        total = sum(peaks[name] for name in names) * len(counts)
        assert total <= most or (len(names) == 1 and len(counts) == 1)


def test_results_of_thread_counts_are_one() -> None:
    whole = profile({"tflite-int8": {1: 10.0, 2: 6.0}, "onnx-int8": {1: 12.0, 2: 7.0}}, warnings=["hot"])
    assert whole.conditions is not None
    parts = [
        replace(
            whole,
            variants={
                name: replace(each, timings=(each.timings[at],)) for name, each in whole.variants.items()
            },
        )
        for at in range(2)
    ]
    found = merged(parts, tuple(whole.variants))
    assert found.variants == whole.variants
    assert not found.settings.interleaved
    assert found.conditions is not None
    samples = [sample.at_s for sample in found.conditions.samples]
    assert samples == sorted(samples)
    assert len(samples) == 2 * len(whole.conditions.samples)
    assert found.conditions.warnings == whole.conditions.warnings
    assert merged([whole], tuple(whole.variants)) is whole
