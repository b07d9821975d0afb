"""What a fuzz target is: it makes a case from random numbers, and checks what pocketvl does with it."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pocketvl_runtime.errors import PocketVLError

MOST_MESSAGE = 2000
"""Characters of an error message that still pass as one clear line."""


class Finding(Exception):  # noqa: N818 - it is what is looked for
    """Behaviour that nothing documents.

    Attributes:
        kind: a few words, the same for all cases that show this fault.
        detail: what was seen in this case.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        what: how it was made, for people.
        files: content by name; saved beside a finding.
        options: what else the target needs to check it.
    """

    what: str
    files: Mapping[str, bytes] = field(repr=False)
    options: Any = None


class Target(Protocol):
    """Something that takes what others made: a parser, a command."""

    name: str

    def make(self, rng: random.Random) -> Case:
        """Makes a case; the same numbers make the same case."""
        ...

    def check(self, case: Case) -> str:
        """Runs a case and returns its outcome in a word or two.

        Raises:
            Finding: what happened is not what is documented. Any other exception counts as one too.
        """
        ...


def numbered_case(target: Target, number: int) -> Case:
    """Case `number` of a target, always the same one."""
    return target.make(random.Random(f"{target.name}:{number}"))


def refusal(error: PocketVLError) -> str:
    """The outcome of a case that a documented error refused; its message has to be one clear line."""
    name, message = type(error).__name__, str(error)
    if len(message.splitlines()) != 1 or not message.strip():
        raise Finding(f"{name} whose message is not one line", repr(message[:500]))
    if len(message) > MOST_MESSAGE:
        raise Finding(f"{name} whose message has more than {MOST_MESSAGE} characters", message[:200] + "...")
    return name


def watch_memory() -> Callable[[], int]:
    """Begins to watch; the result tells by how many bytes this process has grown since, at its peak."""
    with suppress(OSError):  # without this an earlier peak would hide what comes
        Path("/proc/self/clear_refs").write_text("5")
    begun = _peak_rss_bytes()
    return lambda: _peak_rss_bytes() - begun


def _peak_rss_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
