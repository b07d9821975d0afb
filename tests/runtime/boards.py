"""File systems of boards and PCs, as far as their kernels tell of frequency, heat, load and power."""

from __future__ import annotations

from pathlib import Path

CPU = "sys/devices/system/cpu"
GET_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"

PMIC = """\
     3V7_WL_SW_A current(0)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
     3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.15000000V
"""


def write(root: Path, path: str, text: object) -> Path:
    """Write one file of a kernel."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")
    return root / path


def stat(root: Path, *ticks: int) -> None:
    """Write /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice."""
    write(root, "proc/stat", f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4")


def raspberry_pi(root: Path) -> Path:
    """A Raspberry Pi 5 of four processors at 2.4 GHz and 51.5 degrees."""
    for cpu in range(4):
        write(root, f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq", 2_400_000)
        write(root, f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", 2_400_000)
    write(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    write(root, "sys/class/thermal/thermal_zone0/temp", 51_500)
    write(root, "sys/class/thermal/cooling_device0/type", "pwm-fan")
    write(root, "sys/class/thermal/cooling_device0/cur_state", 3)
    write(root, GET_THROTTLED, 0)
    stat(root, 100, 0, 0, 1000, 0, 0, 0, 0, 0, 0)
    return root


def vcgencmd(root: Path, answers: dict[str, str]) -> Path:
    """Write a command that gives these answers, and fails at all else."""
    cases = "".join(f"{word}) cat <<'END'\n{text.rstrip()}\nEND\n;;\n" for word, text in answers.items())
    path = write(root, "usr/bin/vcgencmd", f'#!/bin/sh\ncase "$1" in\n{cases}*) exit 1;;\nesac')
    path.chmod(0o755)
    return path
