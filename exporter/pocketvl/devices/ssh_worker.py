"""What runs on a device behind ssh: it takes files, runs commands, and removes both. Standard library alone.

`ssh_connection` hands the text of this file to the device's `python3 -c`. On its stdin and stdout they then
speak in lines of JSON; a "put" is followed by as many bytes as it names. When the connection ends, or nothing
is heard any more, whatever runs is killed and the worker ends: nothing goes on unseen on somebody's board.
What was copied then stays, so that the next connection can go on where this one broke off.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "pocketvl-worker"
"""Stands on the line before the first message; what a login shell prints before it is no part of the talk."""
FOLDER = "pocketvl-device"
PART = ".part"
_SILENCE_S = 60.0  # while something runs or is copied, the host sends something every few seconds
_IDLE_S = 900.0
_LOCK_S = 90.0  # longer than a worker whose connection was cut can go on
_PATIENCE_S = 5.0
_CHUNK = 1 << 16
_MAX_STDOUT = 1 << 26
_MAX_LINE = 2000


class HostLostError(Exception):
    """The connection ended, or the host fell silent."""


class RefusalError(Exception):
    """Something that the host asked for cannot be done here; its text says why."""


class Host:
    """The other end: lines and bytes on stdin, lines on stdout."""

    def __init__(self) -> None:
        self._buffer = b""

    def say(self, **message: object) -> None:
        """Sends one message."""
        try:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        except OSError:
            raise HostLostError from None

    def message(self, timeout_s: float) -> dict[str, Any]:
        """The next message, waited for."""
        while b"\n" not in self._buffer:
            self._more(timeout_s)
        line, _, self._buffer = self._buffer.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value

    def arrived(self) -> Iterator[dict[str, Any]]:
        """The messages that are here already."""
        if select.select([0], [], [], 0.0)[0]:
            self._more(0.0)
        while b"\n" in self._buffer:
            yield self.message(0.0)

    def data(self, count: int) -> Iterator[bytes]:
        """That many bytes, in pieces."""
        while count:
            if not self._buffer:
                self._more(_SILENCE_S)
            piece, self._buffer = self._buffer[:count], self._buffer[count:]
            count -= len(piece)
            yield piece

    def _more(self, timeout_s: float) -> None:
        readable, _, _ = select.select([0], [], [], timeout_s)
        piece = os.read(0, _CHUNK) if readable else b""
        if not piece:
            raise HostLostError
        self._buffer += piece


class Worker:
    """Serves one host in one folder, which no other worker uses meanwhile."""

    def __init__(self, host: Host, root: Path) -> None:
        self._host = host
        self._root = root

    def serve(self) -> None:
        """Does what the host asks until it says that it is done."""
        while True:
            message = self._host.message(_IDLE_S)
            match message["op"]:
                case "have":
                    self._host.say(have=[self._have(file) for file in message["files"]])
                case "put":
                    self._host.say(whole=self._put(message))
                case "run":
                    self._host.say(**self._run(message["argv"], message["env"], message["timeout_s"]))
                case "close":
                    if message["remove"]:
                        shutil.rmtree(self._root)
                    self._host.say(closed=True)
                    return
                case _:  # a sign of life
                    pass

    def _have(self, file: Mapping[str, Any]) -> int:
        """How many bytes of a file are here: all, if it is the right one; else those of a copy cut short."""
        path = self._root / file["path"]
        if path.is_file() and path.stat().st_size == file["size"] and _sha256(path) == file["sha256"]:
            return int(file["size"])
        part = Path(f"{path}{PART}")
        have = part.stat().st_size if part.is_file() else 0
        return have if have < file["size"] else 0

    def _put(self, file: Mapping[str, Any]) -> bool:
        """Takes the rest of a file; false, and nothing of it is kept, where its checksum is another."""
        path = self._root / file["path"]
        part = Path(f"{path}{PART}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if file["start"] else "wb") as out:
            out.truncate(file["start"])
            out.seek(file["start"])
            for piece in self._host.data(file["size"] - file["start"]):
                out.write(piece)
        if _sha256(part) != file["sha256"]:
            part.unlink()
            return False
        part.replace(path)
        return True

    def _run(self, argv: Sequence[str], env: Mapping[str, str], timeout_s: float) -> dict[str, object]:
        """Runs a command; its lines on stderr are told at once, its stdout at its end."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._root,
                env={**os.environ, **env},
                start_new_session=True,
            )
        except OSError as error:
            return {"exit": 127, "stdout": "", "why": error.strerror}
        try:
            return self._watched(process, timeout_s)
        finally:
            _kill(process)

    def _watched(self, process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, object]:
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        said, lines, opened = b"", b"", {out, err}
        end = heard = time.monotonic()
        end += timeout_s
        while opened:
            readable, _, _ = select.select([0, *opened], [], [], 1.0)
            now = time.monotonic()
            for message in self._host.arrived():
                heard = now
                if message["op"] == "stop":
                    return {"exit": None, "stdout": "", "why": "stopped"}
            if now - heard > _SILENCE_S:
                raise HostLostError
            if now > end:
                return {"exit": None, "stdout": "", "why": "timeout"}
            for number in opened & set(readable):
                piece = os.read(number, _CHUNK)
                if not piece:
                    opened.discard(number)
                elif number == out:
                    said = (said + piece)[:_MAX_STDOUT]
                else:
                    *whole, lines = (lines + piece).replace(b"\r", b"\n").split(b"\n")
                    for line in whole:
                        self._tell(line)
        self._tell(lines)
        return {"exit": process.wait(), "stdout": said.decode(errors="replace"), "why": ""}

    def _tell(self, line: bytes) -> None:
        if line.strip():
            self._host.say(stderr=line.decode(errors="replace")[-_MAX_LINE:])


def main() -> None:
    """Opens the folder, says where it is, and serves."""
    host = Host()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _hang_up)
    sys.stdout.write(f"\n{MARK}\n")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - raises nothing
    root = Path(base) / FOLDER
    try:
        if struct.calcsize("P") < 8:
            raise RefusalError("its Python is a 32-bit one, and engines exist for 64-bit systems only")
        lock = _locked(host, root)
        host.say(root=str(root), python=platform.python_version(), machine=platform.machine())
        Worker(host, root).serve()
        os.close(lock)
    except HostLostError:
        sys.exit(1)
    except RefusalError as why:
        _end(host, str(why))
    except OSError as error:
        shutil.rmtree(root, ignore_errors=True)  # a disk that is full is not left so
        _end(host, f"{error.filename or root}: {error.strerror}")


def _hang_up(number: int, frame: object) -> None:
    raise HostLostError


def _locked(host: Host, root: Path) -> int:
    """Makes the folder and locks it for as long as this process lives; gives the lock."""
    end = time.monotonic() + _LOCK_S
    while True:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), root.stat()):
                return lock
        except FileNotFoundError:  # whoever had it removed it
            pass
        except BlockingIOError:
            if time.monotonic() > end:
                raise RefusalError("another `pocketvl profile` measures there: wait for its end") from None
            host.say(waiting=True)
            time.sleep(1.0)
        os.close(lock)


def _end(host: Host, why: str) -> None:
    with contextlib.suppress(HostLostError):
        host.say(error=why)
    sys.exit(1)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
