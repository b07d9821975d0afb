"""What there is to know of the machine that this process runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pocketvl_runtime.bench_result import Machine
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.emulation import is_emulated
from pocketvl_runtime.isa import cpu_name, has_exact_int8, instruction_set
from pocketvl_runtime.sensors import ROOT, highest_mhz, read_text

_MODELS = ("proc/device-tree/model", "sys/class/dmi/id/product_name")
_GOVERNORS = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"


def this_machine(root: Path = ROOT) -> Machine:
    """The machine, as a bench result describes it.

    Args:
        root: of the file system; `/`.
    """
    return Machine(
        device=next(filter(None, (read_text(root / path) for path in _MODELS)), None),
        cpu=cpu_name(),
        architecture=platform.machine(),
        isa=instruction_set(),
        exact_int8=has_exact_int8(),
        processors=os.cpu_count() or 1,
        usable_processors=usable_processors(),
        memory_bytes=_memory_bytes(),
        os=f"{platform.system()} {platform.release()}",
        governors=tuple(sorted({name for path in root.glob(_GOVERNORS) if (name := read_text(path))})),
        emulated=is_emulated(root),
        mhz_max=highest_mhz(root),
    )


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX, or it does not tell
        return None
