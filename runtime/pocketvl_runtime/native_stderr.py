"""What a native library writes to stderr by itself, which must not stand beside a command's one line.

Rust prints a message of its own where it panics, whatever becomes of the panic, and nothing in Python can
tell it not to. Descriptor 2 is the whole process's, so that a library must leave it alone; a command may move
it for a moment.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

_busy = threading.Lock()
_command: ExitStack | None = None
_store: IO[bytes] | None = None


@contextmanager
def held_for_command() -> Iterator[None]:
    """Within it, `native_stderr` holds back what native code writes; outside of it, that does nothing."""
    global _command, _store
    with ExitStack() as _command:
        try:
            yield
        finally:
            _command = _store = None


@contextmanager
def native_stderr() -> Iterator[None]:
    """Holds back what is written to descriptor 2, and drops it where an error is raised: that has its line.

    It is shown where nothing is raised, or with POCKETVL_DEBUG=1. Of several threads, the first holds it back
    for all.
    """
    if _command is None or not _busy.acquire(blocking=False):
        yield
        return
    store, shown = _opened(_command), os.environ.get("POCKETVL_DEBUG") == "1"
    try:
        with _moved(store):
            yield
        shown = True
    finally:
        _take(store, shown)
        _busy.release()


@contextmanager
def without_native_stderr() -> Iterator[None]:
    """Drops what is written to descriptor 2, of a library that tells what it does; only within a command."""
    if _command is None or os.environ.get("POCKETVL_DEBUG") == "1" or not _busy.acquire(blocking=False):
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere, _moved(nowhere):
            yield
    finally:
        _busy.release()


def _opened(command: ExitStack) -> IO[bytes]:
    """One file for all calls: to open one takes longer than to tokenize a text."""
    global _store
    if _store is None:
        import tempfile

        _store = command.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    return _store


@contextmanager
def _moved(store: IO[bytes]) -> Iterator[None]:
    """Descriptor 2 is `store` within; where it is closed, nothing is moved."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(store.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _take(store: IO[bytes], shown: bool) -> None:
    """Empties the store, and shows what was in it."""
    if os.fstat(store.fileno()).st_size == 0:
        return
    store.seek(0)
    written = store.read()
    store.seek(0)
    store.truncate()
    if shown:
        os.write(2, written)
