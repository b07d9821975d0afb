"""Whether another processor's instructions are translated in software, so that no latency means anything."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from pocketvl_runtime.sensors import ROOT, read_text

_FAMILIES = (("x86", re.compile(r"x86|amd64|i\d86")), ("arm", re.compile(r"arm|aarch64")))


def is_emulated(root: Path = ROOT) -> bool | None:
    """Whether this process runs under qemu-user; None: nothing tells. Nothing tells of a whole machine.

    qemu-user answers for /proc/self/exe itself and names the program that it runs; /proc/thread-self/exe is
    left to the kernel, which names qemu. That holds whatever processor is emulated on whichever. Besides, a
    kernel from 6.1 on tells its own architecture, of whose family this process must be.

    Args:
        root: of the file system; `/`.

    Source: qemu's linux-user/syscall.c (is_proc_myself); the Linux kernel's admin-guide/sysctl/kernel.rst.
    """
    kernel = _family(read_text(root / "proc/sys/kernel/arch"))
    if kernel and kernel != _family(platform.machine()):
        return True
    try:
        seen, real = ((root / "proc" / link / "exe").readlink() for link in ("self", "thread-self"))
    except OSError:
        return False if kernel else None
    return seen != real


def _family(machine: str) -> str:
    """The family of a processor, whose members may run each other's programs."""
    name = machine.lower()
    return next((family for family, pattern in _FAMILIES if pattern.match(name)), name)
