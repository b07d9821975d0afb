"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from pocketvl_runtime.process import rss_bytes

_WORTH_IT = 64 << 20  # bytes; to look for what nothing refers to takes a third of a second


@contextmanager
def trimmed_memory() -> Iterator[None]:
    """Context after which the process lets go of what nothing refers to, if it has grown by much within.

    The C library keeps what is freed for the next allocation. After a stage has worked on a large model that
    is hundreds of MB, beside which the next one needs as much.
    """
    before = rss_bytes()
    yield
    after = rss_bytes()
    if before is None or after is None or after - before > _WORTH_IT:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves
        if trim is not None:
            trim(0)
