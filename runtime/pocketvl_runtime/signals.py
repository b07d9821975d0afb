"""Signals that ask a command to end, as exceptions: whatever is temporary is then removed on the way out."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAID: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
_SAME_REQUEST_S = 1.0  # coreutils' `timeout`, for one, sends its signal twice
_AGAIN_S = 0.02


class EndRequested(BaseException):
    """A signal asks the command to end.

    Attributes:
        number: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `EndRequested`, as SIGINT raises KeyboardInterrupt.

    One that is ignored, as by nohup, stays so. An exception that was raised within a finalizer, from which
    none comes out, is raised again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked_at = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        before, asked_at = asked_at, time.monotonic()
        if asked_at - before > _SAME_REQUEST_S:
            raise EndRequested(number)

    numbers = [number for number in SAID if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        with _raised_again():
            yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _raised_again() -> Iterator[None]:
    lost: list[BaseException] = []
    hook: Callable[[sys.UnraisableHookArgs], object] = sys.unraisablehook

    def notice(args: sys.UnraisableHookArgs) -> None:
        if isinstance(args.exc_value, EndRequested | KeyboardInterrupt):
            lost.append(args.exc_value)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            hook(args)

    def again(number: int, frame: FrameType | None) -> None:
        if lost:
            raise lost.pop().with_traceback(None)

    handler = signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = notice
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        signal.signal(signal.SIGALRM, handler)
