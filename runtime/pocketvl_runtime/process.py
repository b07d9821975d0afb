"""What this process has taken so far: memory, and time since it was started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")
_STAT = Path("/proc/self/stat")
_START_FIELD = 22  # of /proc/self/stat, counted from 1; see proc_pid_stat(5)


def peak_rss_bytes() -> int:
    """The largest resident memory this process has had, in bytes."""
    known = _status_bytes("VmHWM")
    if known is not None:
        return known
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int | None:
    """The resident memory of this process now, in bytes; None: not known."""
    return _status_bytes("VmRSS")


def age_ms() -> float | None:
    """Milliseconds since this process was started, in steps of 10; None: not known."""
    try:
        after_name = _STAT.read_text().rpartition(")")[2].split()  # a program's name may hold spaces
        started = int(after_name[_START_FIELD - 3]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, 1000 * (time.clock_gettime(time.CLOCK_BOOTTIME) - started))
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return None


def _status_bytes(field: str) -> int | None:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
