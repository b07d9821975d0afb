"""The system's `adb`, for one phone: commands, files in and out, and what is wrong where that fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from pocketvl_runtime.errors import BackendError, library_text

QUICK_S = 30.0
"""A command that answers at once on a phone that is well."""
_PUSH_S = 600.0
_NOT_READY = {
    "unauthorized": "has not allowed this computer: unlock it and accept its question about USB debugging",
    "authorizing": "is being asked whether it allows this computer: unlock it and accept",
    "offline": "does not answer adb: unplug it and plug it in again, or restart it",
    "recovery": "is in recovery mode: restart it",
    "sideload": "is in sideload mode: restart it",
    "bootloader": "is in its bootloader: restart it",
    "no permissions": "cannot be opened by this user: install udev rules for it",
}
_FULL = re.compile(r"No space left on device|ENOSPC")


@dataclass(frozen=True)
class Answer:
    """What a command on the phone left.

    Attributes:
        status: its exit status.
        stdout: what it wrote there.
        stderr: likewise.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """What it said last, for an error message."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return library_text(lines[-1] if lines else f"exit status {self.status}")


class AdbShell:
    """Commands on one phone, by the `adb` that the user has.

    Args:
        serial: as `adb devices` lists it; None: the only phone there is.

    Raises:
        BackendError: there is no adb, no such phone, several where none is named, or it does not let us in.
    """

    def __init__(self, serial: str | None = None) -> None:
        if shutil.which("adb") is None:
            raise BackendError(
                "there is no adb on this computer: install Android's platform tools (apt-get install adb)"
            )
        self.serial = _chosen(_states(), serial)

    def run(
        self,
        command: str,
        doing: str,
        timeout_s: float | None = QUICK_S,
        on_error_line: Callable[[str], None] | None = None,
    ) -> Answer:
        """Runs a command in the phone's shell.

        Args:
            command: a line for that shell.
            doing: what it is for, in an error message: "while ... ".
            timeout_s: after which it is given up; None: never.
            on_error_line: told every line of its stderr as it comes, from another thread.

        Raises:
            BackendError: the phone is gone, or took too long. A command that fails is no error here.
        """
        return self._adb(["shell", command], doing, timeout_s, on_error_line)

    def push(self, source: Path, target: str) -> None:
        """Copies a file or a folder to the phone.

        Raises:
            BackendError: it has no room, is gone, or refuses.
        """
        doing = f"copying {source.name} to it"
        answer = self._adb(["push", str(source), target], doing, _PUSH_S)
        if answer.status == 0:
            return
        if _FULL.search(answer.stderr + answer.stdout):
            wanted = sum(each.stat().st_size for each in [source, *source.rglob("*")] if each.is_file())
            raise BackendError(
                f"phone {self.serial} has no room for {wanted / 1e6:.1f} MB in {target}: "
                "delete something on it"
            )
        raise BackendError(f"phone {self.serial} refused {target}: {answer.last_line}")

    def pull(self, source: str) -> str:
        """The text of a file on the phone.

        Raises:
            BackendError: it cannot be read.
        """
        answer = self._adb(["exec-out", "cat", source], f"reading {source}", QUICK_S)
        if answer.status != 0:
            raise BackendError(f"phone {self.serial}: {source} cannot be read ({answer.last_line})")
        return answer.stdout

    def property(self, name: str) -> str:
        """One of Android's properties; empty: not known there."""
        answer = self.run(f"getprop {name}", "asking what it is")
        return answer.stdout.strip() if answer.status == 0 else ""

    def _adb(
        self,
        arguments: list[str],
        doing: str,
        timeout_s: float | None,
        on_error_line: Callable[[str], None] | None = None,
    ) -> Answer:
        process = subprocess.Popen(
            ["adb", "-s", self.serial, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        try:
            answer = _collected(process, timeout_s, on_error_line)
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"phone {self.serial} took longer than {timeout_s:g} s while {doing}; "
                "give it more time, or look at it"
            ) from error
        finally:
            process.kill()
            process.wait()
        if answer.status != 0:
            self._check_still_there(doing)
        return answer

    def _check_still_there(self, doing: str) -> None:
        state = _states().get(self.serial)
        if state is None:
            raise BackendError(
                f"phone {self.serial} disappeared while {doing}: check its cable or network, and start again"
            )
        if state != "device":
            raise BackendError(f"phone {self.serial}, while {doing}: it {_advice(state)}")


def _collected(
    process: subprocess.Popen[str], timeout_s: float | None, on_error_line: Callable[[str], None] | None
) -> Answer:
    """Waits for a process; reads both its streams meanwhile, stderr line by line.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    lines: list[str] = []
    stderr, process.stderr = process.stderr, None  # `communicate` leaves it to the thread

    reader = Thread(target=_read, args=(stderr, lines, on_error_line), daemon=True)
    reader.start()
    stdout, _ = process.communicate(timeout=timeout_s)
    reader.join(timeout=5)
    return Answer(process.returncode, stdout, "".join(lines))


def _read(stream: IO[str], lines: list[str], on_line: Callable[[str], None] | None) -> None:
    with stream:
        for line in stream:
            lines.append(line)
            if on_line is not None:
                on_line(line.rstrip("\n"))


def _states() -> dict[str, str]:
    """Every phone that adb knows, with its state: "device" is one that can be used."""
    try:
        done = subprocess.run(
            ["adb", "devices"], capture_output=True, text=True, errors="replace", timeout=QUICK_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError("adb does not answer: run `adb kill-server`, and start again") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BackendError(
            f"adb cannot list phones ({library_text(said)}): run `adb kill-server`, and start again"
        )
    pairs = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    return {serial.strip(): state.strip() for serial, state in pairs}


def _chosen(states: dict[str, str], serial: str | None) -> str:
    listed = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
    if serial is None:
        if not states:
            raise BackendError(
                "adb sees no phone: connect one, and allow USB debugging in its developer options"
            )
        if len(states) > 1:
            raise BackendError(f"adb sees several phones: {listed}; name one with --adb SERIAL")
        serial = next(iter(states))
    if serial not in states:
        raise BackendError(f"adb sees no phone {serial}; it sees {listed}")
    if states[serial] != "device":
        raise BackendError(f"phone {serial} {_advice(states[serial])}")
    return serial


def _advice(state: str) -> str:
    known = (advice for prefix, advice in _NOT_READY.items() if state.startswith(prefix))
    return next(known, f"is in state {library_text(state)!r} where 'device' is right: restart it")
