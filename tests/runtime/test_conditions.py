"""Samples of a machine, and what they say of the figures."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.bench_result import Conditions, ConditionSample, Machine
from pocketvl_runtime.conditions import ConditionSampler, doubts, frequency_fell
from pocketvl_runtime.machine import this_machine
from tests.runtime.boards import CPU, GET_THROTTLED, PMIC, raspberry_pi, stat, vcgencmd, write

MACHINE = Machine(
    "Board", "Cortex", "aarch64", "neon", True, 4, 4, None, "Linux 6", ("ondemand",), False, 2400.0
)


def sample(at_s: float, mhz: float = 2400.0, other_load: float = 0.0) -> ConditionSample:
    return ConditionSample(at_s, (mhz - 600, mhz), 50.0, other_load, None)


def conditions_of(
    root: Path, change: Callable[[], Any] = lambda: None, own_cpu_s: Callable[[], float] = lambda: 0.0
) -> Conditions:
    """Those of a file system that changes between the first and the last sample."""
    with ConditionSampler(60.0, root, own_cpu_s) as sampler:
        change()
    return sampler.conditions(MACHINE, [1])


@pytest.fixture
def busy_process() -> Iterator[None]:
    spinning = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    spinning.start()
    time.sleep(1)  # until it spins
    yield
    spinning.kill()
    spinning.join()


def spin() -> None:
    while True:
        pass


def test_a_board_is_sampled_at_the_beginning_and_at_the_end(tmp_path: Path) -> None:
    found = conditions_of(
        raspberry_pi(tmp_path), lambda: write(tmp_path, f"{CPU}/cpu3/cpufreq/scaling_cur_freq", 10**6)
    )
    first, last = found.samples
    assert dataclasses.replace(first, at_s=0.0) == ConditionSample(0.0, (2400.0,) * 4, 51.5, None, None)
    assert last.mhz == (2400.0, 2400.0, 2400.0, 1000.0)
    assert (found.throttled, found.energy_j, found.warnings, found.interval_s) == (False, None, (), 60.0)


def test_samples_are_taken_meanwhile(tmp_path: Path) -> None:
    with ConditionSampler(0.02, raspberry_pi(tmp_path)) as sampler:
        time.sleep(0.3)
    times = [each.at_s for each in sampler.samples]
    assert len(times) > 6
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] >= 0.3


def test_what_raised_is_not_hidden_and_ends_the_thread(tmp_path: Path) -> None:
    sampler = ConditionSampler(0.01, raspberry_pi(tmp_path))
    with pytest.raises(ZeroDivisionError), sampler:
        raise ZeroDivisionError
    count = len(sampler.samples)
    time.sleep(0.1)
    assert len(sampler.samples) == count


def test_a_machine_that_tells_nothing_has_samples_all_the_same(tmp_path: Path) -> None:
    found = conditions_of(tmp_path)
    assert [dataclasses.astuple(each)[1:] for each in found.samples] == [(None, None, None, None)] * 2
    assert (found.throttled, found.energy_j, found.warnings) == (None, None, ())


def test_other_load_is_what_this_process_did_not_do(tmp_path: Path) -> None:
    raspberry_pi(tmp_path)
    own = [1.0]

    def work() -> None:
        time.sleep(0.5)
        stat(tmp_path, 250, 0, 0, 1000, 0, 0, 0, 0, 0, 0)  # 1.5 s more
        own[0] = 2.0  # of which 1 s is its own

    _, last = conditions_of(tmp_path, work, lambda: own[0]).samples
    assert last.other_load == pytest.approx(0.5 / last.at_s, rel=0.02)


@pytest.mark.usefixtures("busy_process")
def test_a_program_beside_it_is_noticed_and_this_one_is_not() -> None:
    loads = []
    with ConditionSampler(60.0) as sampler:
        end = time.perf_counter() + 1.5
        while time.perf_counter() < end:
            pass
    loads = [each.other_load for each in sampler.samples if each.other_load is not None]
    usable = this_machine().usable_processors
    assert loads[0] > (0.7 if usable > 1 else 0.3)


def test_a_warning_of_other_load_says_how_much(tmp_path: Path) -> None:
    assert doubts([sample(0, other_load=0.1)], MACHINE, [1], set(), False) == []
    (said,) = doubts([sample(0, other_load=0.5), sample(1, other_load=1.5)], MACHINE, [1], set(), False)
    assert said.startswith("other programs kept 1.0 of 4 processors busy (at most 1.5): compare p10")


def test_throttling_is_said_with_its_reason(tmp_path: Path) -> None:
    raspberry_pi(tmp_path)
    found = conditions_of(tmp_path, lambda: write(tmp_path, GET_THROTTLED, "10001"))
    assert found.throttled is True
    assert found.warnings == (
        "the machine slowed its processors down (under-voltage): cool it, or use a stronger power supply",
    )


def test_first_and_last_minute_are_compared() -> None:
    steady = [sample(float(t)) for t in range(181)]
    falling = [sample(float(t), 2400.0 - 5 * t) for t in range(181)]
    assert frequency_fell(steady) is False
    assert frequency_fell(falling) is True
    assert frequency_fell(falling[:100]) is None  # less than two minutes
    assert frequency_fell([]) is None
    silent = [dataclasses.replace(each, mhz=None) for each in falling]
    assert frequency_fell(silent) is None
    (said,) = doubts(falling[-1:], MACHINE, [1], set(), slower=True)[:1]
    assert "its frequency fell" in said


def test_a_processor_far_below_its_highest_frequency_is_named_with_its_governor() -> None:
    assert doubts([sample(0, 2000.0)], MACHINE, [1], set(), False) == []
    said = doubts([sample(0, 1500.0)], MACHINE, [1], set(), False)
    assert said == ["the fastest processor ran at 1500 of 2400 MHz (governor ondemand)"]


def test_more_threads_than_processors_and_emulation_are_doubtful() -> None:
    emulated = dataclasses.replace(MACHINE, emulated=True, usable_processors=1)
    said = doubts([sample(0)], emulated, [1, 4], set(), False)
    assert said == [
        "the processor is emulated: no figure here is a device's latency",
        "4 threads had 1 processor to run on",
    ]


def test_energy_is_that_of_the_counters(tmp_path: Path) -> None:
    counter = write(raspberry_pi(tmp_path), "sys/class/powercap/intel-rapl:0/energy_uj", 5_000_000)

    def work() -> None:
        time.sleep(0.2)
        counter.write_text("8500000\n")

    found = conditions_of(tmp_path, work)
    assert found.energy_j == pytest.approx(3.5, rel=0.02)
    assert found.samples[0].power_w is None


def test_a_power_chip_is_asked_at_both_ends(tmp_path: Path) -> None:
    vcgencmd(raspberry_pi(tmp_path), {"pmic_read_adc": PMIC})
    found = conditions_of(tmp_path, lambda: time.sleep(0.3))
    assert [each.power_w for each in found.samples] == [pytest.approx(1.97)] * 2
    assert found.energy_j == pytest.approx(1.97 * found.samples[-1].at_s)
