"""What there is to know of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.isa import cpu_name
from pocketvl_runtime.machine import this_machine


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def governor(root: Path, cpu: int, name: str) -> None:
    write(root, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", f"{name}\n")


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cpu == cpu_name()
    assert machine.processors == os.cpu_count()
    assert machine.usable_processors == usable_processors()
    assert machine.os.startswith(f"{os.uname().sysname} ")
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 100e6


def test_a_board_is_known_by_its_device_tree(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    assert this_machine(tmp_path).device == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_pc_is_known_by_its_firmware(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/dmi/id/product_name", "ThinkPad T14\n")
    assert this_machine(tmp_path).device == "ThinkPad T14"


@pytest.mark.parametrize("text", ["", "\n", "\0"])
def test_a_nameless_device_is_not_known(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/device-tree/model", text)
    assert this_machine(tmp_path).device is None


def test_every_governor_is_named_once(tmp_path: Path) -> None:
    assert this_machine(tmp_path).governors == ()
    for cpu, name in enumerate(("schedutil", "performance", "schedutil")):
        governor(tmp_path, cpu, name)
    governor(tmp_path, 10, "powersave")
    assert this_machine(tmp_path).governors == ("performance", "powersave", "schedutil")


def test_memory_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert this_machine().memory_bytes is None
