"""Which variants are timed in turns in one process, as far as memory goes; one result of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

from pocketvl_runtime.bench_result import BenchResult, Conditions, VariantBench

Group = tuple[tuple[str, ...], tuple[int, ...]]
"""Variants and thread counts of one bench."""


def groups_of(peaks: Mapping[str, int], threads: Sequence[int], most_bytes: int | None) -> list[Group]:
    """Splits variants and thread counts into benches that are expected to stay below some memory.

    A bench loads each of its variants once for each thread count. What does not fit beside anything is alone.

    Args:
        peaks: the memory that a process needs which runs one variant alone, in bytes, by variant.
        threads: the thread counts.
        most_bytes: None where memory is no matter.
    """
    if most_bytes is None or sum(peaks.values()) * len(threads) <= most_bytes:
        return [(tuple(peaks), tuple(threads))]
    groups: list[Group] = []
    for count in threads:
        together: list[str] = []
        for name, peak in peaks.items():
            if together and sum(peaks[each] for each in together) + peak > most_bytes:
                groups.append((tuple(together), (count,)))
                together = []
            together.append(name)
        groups.append((tuple(together), (count,)))
    return groups


def merged(results: Sequence[BenchResult], variants: Sequence[str]) -> BenchResult:
    """One result of benches of one bundle on one machine, one after the other.

    Args:
        results: at least one; of one, it is that.
        variants: the order of the variants.
    """
    first = results[0]
    if len(results) == 1:
        return first
    found: dict[str, VariantBench] = {}
    for result in results:
        for name, each in result.variants.items():
            known = found.get(name)
            found[name] = each if known is None else replace(known, timings=(*known.timings, *each.timings))
    return replace(
        first,
        settings=replace(first.settings, interleaved=False),
        variants={name: found[name] for name in variants},
        conditions=conditions_of(results),
        sustained=tuple(each for result in results for each in result.sustained),
    )


def conditions_of(results: Sequence[BenchResult]) -> Conditions | None:
    """What the machine was like in several benches, one after the other; None: it is not known of any."""
    known = [result.conditions for result in results if result.conditions is not None]
    return reduce(_one_after_the_other, known) if known else None


def _one_after_the_other(first: Conditions, then: Conditions) -> Conditions:
    end = first.samples[-1].at_s if first.samples else 0.0
    later = tuple(replace(sample, at_s=end + sample.at_s) for sample in then.samples)
    known = [each for each in (first.throttled, then.throttled) if each is not None]
    energies = [each for each in (first.energy_j, then.energy_j) if each is not None]
    return replace(
        first,
        samples=(*first.samples, *later),
        throttled=any(known) if known else None,
        energy_j=sum(energies) if len(energies) == 2 else None,
        warnings=tuple(dict.fromkeys((*first.warnings, *then.warnings))),
    )
