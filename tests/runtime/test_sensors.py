"""What is read of a machine's frequency, heat, load and power."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl_runtime.sensors import (
    EnergyMeter,
    Frequencies,
    ProcessorTime,
    Thermometer,
    Throttle,
    Vcgencmd,
    highest_mhz,
)
from tests.runtime.boards import CPU, GET_THROTTLED, PMIC, raspberry_pi, stat, vcgencmd, write

NO_COMMAND = Vcgencmd(None)


def throttle(root: Path) -> Throttle:
    return Throttle(root, Vcgencmd.find(root))


def test_what_a_machine_does_not_tell_is_not_known(tmp_path: Path) -> None:
    assert Frequencies(tmp_path).mhz() is None
    assert highest_mhz(tmp_path) is None
    assert Thermometer(tmp_path).celsius() is None
    assert ProcessorTime(tmp_path).busy_s() is None
    assert not throttle(tmp_path).known
    assert EnergyMeter(tmp_path, NO_COMMAND).watts(1.0, ask=True) is None


def test_frequencies_are_in_the_order_of_the_processors(tmp_path: Path) -> None:
    for cpu in (10, 9, 0):
        write(tmp_path, f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq", 1_000_000 + cpu * 1000)
        write(tmp_path, f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", 2_000_000 + cpu * 1000)
    assert Frequencies(tmp_path).mhz() == (1000.0, 1009.0, 1010.0)
    assert highest_mhz(tmp_path) == 2010.0


def test_a_file_that_cannot_be_read_or_is_no_number_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, f"{CPU}/cpu0/cpufreq/scaling_cur_freq", "<unknown>")
    last = write(tmp_path, f"{CPU}/cpu1/cpufreq/scaling_cur_freq", 1_500_000)
    frequencies = Frequencies(tmp_path)
    assert frequencies.mhz() == (1500.0,)
    last.unlink()  # a processor was taken offline
    assert frequencies.mhz() is None


def test_the_warmest_zone_of_the_processor_counts_and_no_others(tmp_path: Path) -> None:
    for zone, (kind, degrees) in enumerate(
        [("battery", 90.0), ("x86_pkg_temp", 60.5), ("cpu-thermal", 61.0), ("iwlwifi_1", 95.0)]
    ):
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/type", kind)
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/temp", int(1000 * degrees))
    assert Thermometer(tmp_path).celsius() == 61.0


def test_without_such_a_zone_the_chips_sensors_count(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "acpitz")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", 20_000)
    for chip, (name, degrees) in enumerate([("nvme", 70), ("k10temp", 55)]):
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/name", name)
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/temp1_input", 1000 * degrees)
    assert Thermometer(tmp_path).celsius() == 55.0


def test_processors_are_busy_with_all_but_idling_and_waiting(tmp_path: Path) -> None:
    stat(tmp_path, 100, 20, 30, 5000, 4000, 1, 2, 300, 7, 8)  # guests are in user and nice already
    assert ProcessorTime(tmp_path).busy_s() == 4.53
    stat(tmp_path, 100, 20, 30, 5000, 4000, 1, 2)  # an old kernel, which does not tell what was stolen
    assert ProcessorTime(tmp_path).busy_s() == 1.53
    write(tmp_path, "proc/stat", "cpu 1 2")
    assert ProcessorTime(tmp_path).busy_s() is None


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        ("0", "0", set()),
        ("0", "50005", {"under-voltage", "throttled"}),
        ("0", "20000", {"frequency capped"}),  # it was, for a while
        ("50000", "50000", set()),  # that was before
        ("50000", "d0000", {"soft temperature limit"}),
        ("50000", "50001", {"under-voltage"}),
    ],
)
def test_a_boards_firmware_says_why_it_is_slow(
    before: str, after: str, reasons: set[str], tmp_path: Path
) -> None:
    raspberry_pi(tmp_path)
    write(tmp_path, GET_THROTTLED, before)
    found = throttle(tmp_path)
    assert found.known
    write(tmp_path, GET_THROTTLED, after)
    assert found.reasons() == reasons


def test_without_its_file_the_firmware_is_asked_by_its_command_only_when_told(tmp_path: Path) -> None:
    vcgencmd(tmp_path, {"get_throttled": "throttled=0x0"})
    found = throttle(tmp_path)
    assert found.known
    vcgencmd(tmp_path, {"get_throttled": "throttled=0x20002"})
    assert found.reasons() == set()
    assert found.reasons(ask=True) == {"frequency capped"}


@pytest.mark.parametrize("answer", ["", "throttled=", "error=1", "throttled=0xzz"])
def test_a_firmware_that_talks_nonsense_is_not_known(answer: str, tmp_path: Path) -> None:
    vcgencmd(tmp_path, {"get_throttled": answer})
    assert not throttle(tmp_path).known


def test_a_command_that_fails_or_hangs_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = vcgencmd(tmp_path, {})
    assert Vcgencmd.find(tmp_path).ask("get_throttled") == ""
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("pocketvl_runtime.sensors._VCGENCMD_S", 0.2)
    assert Vcgencmd.find(tmp_path).ask("get_throttled") == ""


def test_an_x86_that_throttled_meanwhile_says_so(tmp_path: Path) -> None:
    write(tmp_path, f"{CPU}/cpu0/thermal_throttle/core_throttle_count", 7)
    counter = write(tmp_path, f"{CPU}/cpu1/thermal_throttle/package_throttle_count", 3)
    found = throttle(tmp_path)
    assert (found.known, found.reasons()) == (True, set())
    counter.write_text("4\n")
    assert found.reasons() == {"too hot"}


def test_a_processor_that_is_cooled_by_its_frequency_says_so(tmp_path: Path) -> None:
    raspberry_pi(tmp_path)  # its fan turns, which slows nothing down
    write(tmp_path, "sys/class/thermal/cooling_device1/type", "cpufreq-cpu0")
    state = write(tmp_path, "sys/class/thermal/cooling_device1/cur_state", 0)
    found = throttle(tmp_path)
    assert found.reasons() == set()
    state.write_text("2\n")
    assert found.reasons() == {"cooled by a lower frequency"}


def test_counters_of_energy_give_the_power_since_the_last_call(tmp_path: Path) -> None:
    package = write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 1_000_000)
    write(tmp_path, "sys/class/powercap/intel-rapl:0/max_energy_range_uj", 10_000_000)
    write(tmp_path, "sys/class/powercap/intel-rapl:0:0/energy_uj", 900_000)  # the cores, in the package
    meter = EnergyMeter(tmp_path, NO_COMMAND)
    package.write_text("7000000\n")
    assert meter.watts(2.0) == 3.0
    package.write_text("1000000\n")  # it went around
    assert meter.watts(2.0) == 2.0
    assert meter.watts(0.0) is None


def test_sensors_of_power_are_added_up_without_graphics(tmp_path: Path) -> None:
    for chip, (name, microwatts) in enumerate(
        [("ina226", 4_000_000), ("amdgpu", 9_000_000), ("ina219", 500_000)]
    ):
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/name", name)
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/power1_input", microwatts)
    assert EnergyMeter(tmp_path, NO_COMMAND).watts(1.0) == 4.5


def test_a_power_chip_is_asked_by_its_command_only_when_told(tmp_path: Path) -> None:
    vcgencmd(tmp_path, {"pmic_read_adc": PMIC})
    meter = EnergyMeter(tmp_path, Vcgencmd.find(tmp_path))
    assert meter.by_command
    assert meter.watts(1.0) is None
    assert meter.watts(1.0, ask=True) == pytest.approx(0.1 * 3.7 + 2.0 * 0.8)
