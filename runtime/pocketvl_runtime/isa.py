"""Which processor this is, and whether its 8-bit products are exact."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

MAX_THREADS = 256
"""More are no help to one inference, and some engines fall over."""

_CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i386", "i686")
_X86_LEVELS = (
    ("avx512_vnni", "avx512_vnni"),
    ("avx_vnni", "avx_vnni"),
    ("avx512bw", "avx512"),
    ("avx2", "avx2"),
    ("avx", "avx"),
)
_X86_EXTENSIONS = (("amx_int8", "amx"),)
_ARM_EXTENSIONS = (("asimddp", "dotprod"), ("i8mm", "i8mm"))


@functools.cache
def cpu_name() -> str:
    """The processor's name as the system tells it."""
    fields = _cpuinfo()
    return fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()


@functools.cache
def instruction_set() -> str:
    """What decides how fast, and on x86 how exact, int8 is: "avx2", "avx512_vnni+amx", "neon+dotprod", ...

    Only Linux tells; elsewhere the architecture's name is returned.
    """
    fields = _cpuinfo()
    if _is_x86():
        flags = set(fields.get("flags", "").split())
        level = next((name for flag, name in _X86_LEVELS if flag in flags), platform.machine())
        return _with_extensions(level, _X86_EXTENSIONS, flags)
    if platform.machine() in ("aarch64", "arm64"):
        return _with_extensions("neon", _ARM_EXTENSIONS, set(fields.get("Features", "").split()))
    return platform.machine()


def has_exact_int8() -> bool:
    """Whether sums of 8-bit products are kept in 32 bits by the processor itself.

    ARM does so. x86 does from VNNI on; before, pairs of products are added in 16 bits and saturate. Where the
    system does not tell the instruction set of an x86, the answer is no.
    """
    return not _is_x86() or instruction_set().split("+")[0] in ("avx512_vnni", "avx_vnni")


def _with_extensions(level: str, extensions: tuple[tuple[str, str], ...], flags: set[str]) -> str:
    return "+".join([level, *(name for flag, name in extensions if flag in flags)])


def _is_x86() -> bool:
    return platform.machine().lower() in _X86


def _cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields
