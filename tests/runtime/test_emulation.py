"""Whether a process is told that it is emulated."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pocketvl_runtime.emulation import is_emulated


def proc(
    root: Path, *, seen: str = "/usr/bin/python3", real: str = "/usr/bin/python3", arch: str = ""
) -> Path:
    """A /proc as a process sees it."""
    for link, target in (("self", seen), ("thread-self", real)):
        (root / "proc" / link).mkdir(parents=True)
        (root / "proc" / link / "exe").symlink_to(target)
    if arch:
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/sys/kernel/arch").write_text(f"{arch}\n")
    return root


def test_this_process_is_what_it_seems() -> None:
    assert is_emulated() is False


def test_a_program_behind_qemu_is_emulated(tmp_path: Path) -> None:
    assert is_emulated(proc(tmp_path / "a")) is False
    assert is_emulated(proc(tmp_path / "b", real="/usr/bin/qemu-aarch64")) is True


@pytest.mark.parametrize(
    ("machine", "arch", "emulated"),
    [
        ("aarch64", "x86_64", True),
        ("x86_64", "aarch64", True),
        ("riscv64", "x86_64", True),
        ("aarch64", "aarch64", False),
        ("armv7l", "aarch64", False),  # 32-bit programs run on a 64-bit kernel
        ("i686", "x86_64", False),
        ("AMD64", "x86_64", False),
        ("riscv64", "riscv64", False),
    ],
)
def test_the_kernels_architecture_is_that_of_the_process(
    machine: str, arch: str, emulated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert is_emulated(proc(tmp_path / "both", arch=arch)) is emulated
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/arch").write_text(arch)
    assert is_emulated(tmp_path) is emulated  # without links


def test_without_proc_nothing_tells(tmp_path: Path) -> None:
    assert is_emulated(tmp_path) is None
