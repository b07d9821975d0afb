"""AMX is refused to a process and to those that it starts, and nothing else is."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ASK = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
refused, permitted = libc.syscall(158, 0x1023, 18), ctypes.c_ulong()
print(refused, ctypes.get_errno(), libc.syscall(158, 0x1022, ctypes.byref(permitted)))
"""
EPERM = 1


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="AMX is of x86, arch_prctl of Linux",
)
def test_only_the_request_for_tiles_is_refused() -> None:
    command = [sys.executable, "-m", "bench.amx", sys.executable, "-c", ASK]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["-1", str(EPERM), "0"]
