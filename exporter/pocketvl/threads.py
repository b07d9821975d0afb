"""Work shared by threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from pocketvl_runtime.cpus import usable_processors

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@contextmanager
def in_threads(work: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[Iterator[_Made]]:
    """What comes of each item, in order, by as many threads as there are processors to use.

    It pays where the work leaves Python's lock: in Pillow, numpy and torch.
    """
    threads = ThreadPoolExecutor(usable_processors())
    try:
        yield threads.map(work, items)
    finally:
        threads.shutdown(cancel_futures=True)  # where somebody interrupts, the rest is not done first


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Context in which each of torch's operations, in any thread of Python, is done by one thread.

    Sums by several differ in the last digit; and threads of torch that wait for each other in many small
    operations take longer than one alone, most of all where another process is at work.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
