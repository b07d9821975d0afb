"""What the kernel and the board's firmware tell of frequency, heat, power and load, file by file.

Paths are looked up once, when a sensor is made: a reading is a few small files, and nothing that searches.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/")
_CPU = "sys/devices/system/cpu"
_TICKS_PER_S = 100  # USER_HZ, the unit of /proc/stat, is the same on every architecture that runs an engine
_CPU_ZONE = re.compile(r"cpu|soc|pkg|package|core|cluster|big|little", re.IGNORECASE)
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_GPU_CHIPS = ("amdgpu", "radeon", "nouveau", "i915", "xe")
_VCGENCMD_S = 2.0
_RAIL = re.compile(r"(\S+)_([AV]) (?:current|volt)\(\d+\)=([0-9.]+)[AV]")
_NOW_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16  # the same bits, this much higher, stay set until the board is started again


def read_text(path: Path) -> str:
    """What a file of the kernel says; empty: it cannot be read. The device tree ends strings in a NUL."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(read_text(path))
    except ValueError:
        return None


def _numbers(paths: Iterable[Path]) -> list[float]:
    return [value for path in paths if (value := _number(path)) is not None]


def _sorted(root: Path, pattern: str) -> list[Path]:
    """Paths by the numbers in them: cpu10 comes after cpu9."""
    return sorted(root.glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])


class Frequencies:
    """How fast processors run."""

    def __init__(self, root: Path) -> None:
        self._current = _sorted(root, f"{_CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq")

    def mhz(self) -> tuple[float, ...] | None:
        """Of each processor that tells, in the order of their numbers; None: none does."""
        return tuple(value / 1e3 for value in _numbers(self._current)) or None


def highest_mhz(root: Path) -> float | None:
    """The highest frequency that a processor may take; None: not known."""
    found = _numbers(_sorted(root, f"{_CPU}/cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    return max(found) / 1e3 if found else None


class Thermometer:
    """The processor's temperature: of thermal zones named after it, else of its chip's sensors."""

    def __init__(self, root: Path) -> None:
        zones = [
            path
            for path in _sorted(root, "sys/class/thermal/thermal_zone[0-9]*")
            if _CPU_ZONE.search(read_text(path / "type"))
        ]
        self._files = [zone / "temp" for zone in zones] or [
            path
            for path in _sorted(root, "sys/class/hwmon/hwmon[0-9]*/temp[0-9]*_input")
            if read_text(path.with_name("name")) in _CPU_CHIPS
        ]

    def celsius(self) -> float | None:
        """The warmest of them; None: not known."""
        found = _numbers(self._files)
        return max(found) / 1e3 if found else None


class ProcessorTime:
    """How long processors have been busy since the machine was started, whoever kept them so."""

    def __init__(self, root: Path) -> None:
        self._stat = root / "proc/stat"

    def busy_s(self) -> float | None:
        """Seconds, of all processors together; what a hypervisor took counts. None: not known.

        Source: proc_stat(5).
        """
        fields = read_text(self._stat).partition("\n")[0].split()
        try:
            user, nice, system, _idle, _iowait, irq, softirq, *more = (int(n) for n in fields[1:])
        except ValueError:
            return None
        return (user + nice + system + irq + softirq + sum(more[:1])) / _TICKS_PER_S


@dataclass(frozen=True)
class Vcgencmd:
    """The command by which a Raspberry Pi's firmware is asked; a process of its own each time.

    Attributes:
        path: of the command; None: there is none.
    """

    path: str | None

    @classmethod
    def find(cls, root: Path) -> Vcgencmd:
        """The one of a file system."""
        folders = ":".join(str(root / folder) for folder in ("usr/bin", "usr/local/bin", "opt/vc/bin"))
        return cls(shutil.which("vcgencmd", path=folders))

    def ask(self, *words: str) -> str:
        """What it answers; empty: nothing."""
        if self.path is None:
            return ""
        try:
            command = [self.path, *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_VCGENCMD_S, check=False)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""


class Throttle:
    """Whether the machine slows its processors down to stay cool, or for want of power.

    Of a Raspberry Pi the firmware tells, of x86 the kernel's counters, of other boards its cooling devices.
    Only what is there is asked; `known` says whether anything is.

    Source: Raspberry Pi documentation, `vcgencmd get_throttled`; the Linux kernel's
    thermal/sysfs-api.rst and arch/x86/kernel/cpu/mce/therm_throt.c.
    """

    def __init__(self, root: Path, vcgencmd: Vcgencmd) -> None:
        self._vcgencmd = vcgencmd
        self._firmware = next(root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled"), None)
        self._counters = _sorted(root, f"{_CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count")
        self._cooling = [
            path / "cur_state"
            for path in _sorted(root, "sys/class/thermal/cooling_device[0-9]*")
            if re.search(r"cpufreq|processor", read_text(path / "type"), re.IGNORECASE)
        ]
        self._bits_before = self._bits(ask=True)
        self._counted_before = sum(_numbers(self._counters))
        self.known = bool(self._bits_before is not None or self._counters or self._cooling)

    def reasons(self, ask: bool = False) -> set[str]:
        """In words, what slows it down now, or has begun to since this was made.

        Args:
            ask: ask the firmware by its command too, where it has no file.
        """
        found = set()
        bits = self._bits(ask)
        if bits is not None:
            newly = (bits & ~(self._bits_before or 0)) >> _SINCE_BOOT
            found |= {word for bit, word in _NOW_BITS.items() if (bits | newly) >> bit & 1}
        if sum(_numbers(self._counters)) > self._counted_before:
            found.add("too hot")
        if any(state > 0 for state in _numbers(self._cooling)):
            found.add("cooled by a lower frequency")
        return found

    def _bits(self, ask: bool) -> int | None:
        text = read_text(self._firmware) if self._firmware else ""
        if not text and ask:
            text = self._vcgencmd.ask("get_throttled").partition("throttled=0x")[2]
        try:
            return int(text, 16) if text else None
        except ValueError:
            return None


@dataclass
class EnergyMeter:
    """What the machine uses, as much of it as is metered: Intel's and AMD's RAPL counters, a power sensor of
    hwmon, or the power chip of a Raspberry Pi 5.

    Source: the Linux kernel's power/powercap/powercap.rst and hwmon/sysfs-interface.rst; Raspberry Pi
    documentation, `vcgencmd pmic_read_adc`.
    """

    root: Path
    vcgencmd: Vcgencmd
    _last: dict[Path, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        packages = _sorted(self.root, "sys/class/powercap/intel-rapl:[0-9]*/energy_uj")
        self._counters = [path for path in packages if ":" not in path.parent.name.partition(":")[2]]
        self._sensors = [
            path
            for path in _sorted(self.root, "sys/class/hwmon/hwmon[0-9]*/power[0-9]*_input")
            if read_text(path.with_name("name")) not in _GPU_CHIPS
        ]
        self._last = {path: value for path in self._counters if (value := _number(path)) is not None}
        self.by_command = (
            not self._last and not _numbers(self._sensors) and bool(self.vcgencmd.ask("pmic_read_adc"))
        )

    def watts(self, seconds: float, ask: bool = False) -> float | None:
        """Since the last call for a counter, now for a sensor; None: nothing is metered.

        Args:
            seconds: since the last call.
            ask: ask the firmware by its command too.
        """
        if self._last:
            return self._joules() / seconds if seconds > 0 else None
        now = _numbers(self._sensors)
        if now:
            return sum(now) / 1e6
        return _rails_watts(self.vcgencmd.ask("pmic_read_adc")) if self.by_command and ask else None

    def _joules(self) -> float:
        used = 0.0
        for path, before in self._last.items():
            now = _number(path)
            if now is None:
                continue
            around = 0.0 if now >= before else _number(path.with_name("max_energy_range_uj")) or 0.0
            used += max(0.0, now - before + around)
            self._last[path] = now
        return used / 1e6


def _rails_watts(text: str) -> float | None:
    """The sum over the rails of which both current and voltage are told."""
    read = {(rail, unit): float(value) for rail, unit, value in _RAIL.findall(text)}
    found = [
        amps * read[rail, "V"] for (rail, unit), amps in read.items() if unit == "A" and (rail, "V") in read
    ]
    return sum(found) if found else None
