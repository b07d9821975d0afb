"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def trim_memory() -> None:
    """Let go of what nothing refers to any more, which the C library may keep for the next allocation.

    After a stage has worked on a large model that is hundreds of MB, beside which the next one needs as much.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves
    if trim is not None:
        trim(0)
