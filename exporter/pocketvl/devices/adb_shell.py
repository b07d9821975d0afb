"""The system's `adb`, for one phone: commands, files in and out, and what is wrong where that fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pocketvl.devices.running import CommandError, run_command
from pocketvl_runtime.errors import BackendError, library_text
from pocketvl_runtime.progress import Progress

QUICK_S = 30.0
"""A command that answers at once on a phone that is well."""
_COPY_S = 600.0
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
        status: its exit status; 0 is good.
        stdout: what it wrote there.
        last_line: what it said last; empty where it was good.
    """

    status: int
    stdout: str
    last_line: str


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
        progress: Progress | None = None,
    ) -> Answer:
        """Runs a command in the phone's shell.

        Args:
            command: a line for that shell.
            doing: what it is for, in messages.
            timeout_s: after which it is given up; None: never.
            progress: told of the progress lines on its stderr.

        Raises:
            BackendError: the phone is gone, or took too long. A command that fails is no error here.
        """
        return self._adb(["shell", command], doing, timeout_s, progress)

    def push(self, source: Path, target: str) -> None:
        """Copies a file or a folder to the phone.

        Raises:
            BackendError: it has no room, is gone, or refuses.
        """
        doing = f"copying {source.name}"
        answer = self._adb(["push", str(source), target], doing, _COPY_S)
        if answer.status == 0:
            return
        if _FULL.search(answer.stdout + answer.last_line):
            wanted = sum(each.stat().st_size for each in [source, *source.rglob("*")] if each.is_file())
            raise BackendError(
                f"phone {self.serial} has no room for {wanted / 1e6:.1f} MB in {target}: "
                "delete something on it"
            )
        said = [line for line in answer.stdout.splitlines() if line.startswith("adb: error:")]
        reason = library_text(said[0].removeprefix("adb: error: ")) if said else answer.last_line
        raise BackendError(f"phone {self.serial} refused {target}: {reason}")

    def pull(self, source: str, target: Path) -> None:
        """Copies a file from the phone.

        Raises:
            BackendError: it cannot be read, or the phone is gone.
        """
        answer = self._adb(["pull", source, str(target)], f"fetching {source}", _COPY_S)
        if answer.status != 0:
            raise BackendError(f"phone {self.serial}: {source} cannot be read ({answer.last_line})")

    def property(self, name: str) -> str:
        """One of Android's properties; empty: not known there."""
        answer = self.run(f"getprop {name}", "asking what it is")
        return answer.stdout.strip() if answer.status == 0 else ""

    def _adb(
        self, arguments: list[str], doing: str, timeout_s: float | None, progress: Progress | None = None
    ) -> Answer:
        command, what = ["adb", "-s", self.serial, *arguments], f"{doing} on phone {self.serial}"
        try:
            stdout = run_command(command, what, timeout_s, progress)
            if not stdout:  # adb calls a shell good, too, whose phone went away
                self.check_still_there(doing)
            return Answer(0, stdout, "")
        except CommandError as error:
            if error.status is None:
                raise
            self.check_still_there(doing)
            # adb itself tells of failed copies on stdout
            lines = error.lines or error.stdout.strip().splitlines() or [f"exit status {error.status}"]
            return Answer(error.status, error.stdout, library_text(lines[-1].removeprefix("error: ")))

    def check_still_there(self, doing: str) -> None:
        """Raises BackendError where the phone cannot be used any more; `doing` is what it was used for."""
        state = _states().get(self.serial)
        if state is None:
            raise BackendError(
                f"phone {self.serial} disappeared while {doing}: check its cable or network, and start again"
            )
        if state != "device":
            raise BackendError(f"phone {self.serial}, while {doing}: it {_advice(state)}")


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
