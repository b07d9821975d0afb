"""AMX refused to this process and to all that it starts, so that an x86 is measured as one with VNNI alone.

    python -m bench.amx COMMAND...

Linux gives a process AMX's tiles when it asks (arch_prctl ARCH_REQ_XCOMP_PERM; its sources tell more in
Documentation/arch/x86/xstate.rst). oneDNN, XNNPACK and MLAS ask, and take their AVX512-VNNI kernels where the
answer is no. A seccomp filter makes it no: children inherit it, and nobody can take it back.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from pocketvl_runtime.isa import instruction_set

_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_XTILEDATA = 18
_AUDIT_ARCH_X86_64 = 0xC000003E
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SYSTEM_CALL, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def has_amx() -> bool:
    """Whether the processor has AMX and this process may use it."""
    if "+amx" not in instruction_set():  # which Linux alone tells
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA) == 0)


def refuse_amx() -> None:
    """Refuse AMX to this process, unless it has it already, and to processes that it starts.

    Raises:
        OSError: the kernel takes no filter.
    """
    conditions = (
        (_ARCHITECTURE, _AUDIT_ARCH_X86_64),
        (_SYSTEM_CALL, _ARCH_PRCTL),
        (_FIRST_ARGUMENT, _ARCH_REQ_XCOMP_PERM),
    )
    program = []
    for index, (offset, value) in enumerate(conditions):
        to_allow = 2 * (len(conditions) - 1 - index) + 1
        program += [(_LOAD, 0, 0, offset), (_JUMP_IF_EQUAL, 0, to_allow, value)]
    program += [(_RETURN, 0, 0, _ERRNO | 1), (_RETURN, 0, 0, _ALLOW)]
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    libc = ctypes.CDLL(None, use_errno=True)
    filtered = _Program(len(program), packed)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filtered), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m bench.amx COMMAND...")
    refuse_amx()
    os.execvp(sys.argv[1], sys.argv[1:])
