"""One connection of the system's `ssh` to a worker on a device: keys, agents and configuration work."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import re
import shlex
import shutil
import subprocess
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from pocketvl.devices import ssh_worker
from pocketvl_runtime.errors import BackendError, InputError, library_text, shortened

DEFAULT_PYTHON = "python3"
_OPTIONS = {
    "BatchMode": "yes",  # who has to type something cannot be asked in the middle of a measurement
    "ConnectTimeout": "20",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "4",
    "ClearAllForwardings": "yes",
    "ControlMaster": "no",  # one that is there is used, but none is left behind
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
_SHORT_PYTHON = "pocketvl-needs-3.11"
_BOOTSTRAP = (
    'import sys,base64,zlib;exec(zlib.decompress(base64.b64decode("{source}")) '
    'if sys.version_info>=(3,11) else "sys.exit(\\"{old} \\"+sys.version.split()[0])")'
)
_OPEN_S = 120.0
_ANSWER_S = 300.0
_TICK_S = 3.0
_GRACE_S = 30.0
_LAST_LINES = 40
_CHUNK = 1 << 16


@dataclass(frozen=True)
class SshTarget:
    """Whom to connect to.

    Attributes:
        host: name or address, or an alias of ~/.ssh/config.
        user: None: ssh's own choice.
        port: likewise.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """Reads `[user@]host[:port]`; an IPv6 address with a port stands in brackets.

        Raises:
            InputError: it is none.
        """
        user, at, rest = text.rpartition("@")
        match = re.fullmatch(
            r"\[([0-9A-Fa-f:.%\w]+)\](?::(\d+))?|([^\s:\[\]]+)(?::(\d+))?|([0-9A-Fa-f:]+)", rest
        )
        host = match and (match[1] or match[3] or match[5])
        port = match and (match[2] or match[4])
        bad_user = at and (not user or user.startswith("-") or re.search(r"\s", user))
        if not host or host.startswith("-") or bad_user or (port and not 0 < int(port) < 65536):
            raise InputError(f"{text!r} is no user@host or user@host:port")
        return cls(host, user or None, int(port) if port else None)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    def command(self, remote: str) -> list[str]:
        """ssh, and what it runs there."""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        port = ["-p", str(self.port)] if self.port else []
        return ["ssh", *options, *port, "--", str(self), remote]


@dataclass(frozen=True)
class CommandResult:
    """What a command on the device did.

    Attributes:
        exit: its status; None: it was ended after its time.
        stdout: what it printed.
        stderr: the last lines that it said.
    """

    exit: int | None
    stdout: str
    stderr: tuple[str, ...]


class SshConnection:
    """Runs a worker on the device and talks to it; a context manager.

    Attributes:
        target: who it is.
        root: the worker's folder there, absolute.
    """

    def __init__(self, target: SshTarget, python: str | None) -> None:
        self.target = target
        self.root = ""
        self._python = python or DEFAULT_PYTHON
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._threads: list[threading.Thread] = []
        self._error: str | None = None

    def __enter__(self) -> Self:
        source = base64.b64encode(zlib.compress(Path(ssh_worker.__file__).read_bytes(), 9)).decode()
        code = _BOOTSTRAP.format(source=source, old=_SHORT_PYTHON)
        if shutil.which("ssh") is None:
            raise BackendError(
                "there is no `ssh` here: install OpenSSH's client (apt install openssh-client)"
            )
        # In a session of its own, so that Ctrl-C does not end it before the device is told to clean up.
        self._process = subprocess.Popen(
            self.target.command(f"exec {shlex.quote(self._python)} -c '{code}'"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for read, stream in (
            (self._read_messages, self._process.stdout),
            (self._read_stderr, self._process.stderr),
        ):
            self._threads.append(threading.Thread(target=read, args=(stream,), daemon=True))
            self._threads[-1].start()
        try:
            self.root = self._answer(_OPEN_S, "root")["root"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def have(self, files: Sequence[Mapping[str, object]]) -> list[int]:
        """How many bytes of each file (`path`, `size`, `sha256`) are there."""
        self._say({"op": "have", "files": files})
        have: list[int] = self._answer(_ANSWER_S, "have")["have"]
        return have

    def put(
        self, path: str, content: IO[bytes], size: int, sha256: str, start: int, tell: Callable[[int], None]
    ) -> bool:
        """Sends a file from a byte on; false: what is there now has another checksum, and was removed.

        Args:
            path: below the worker's folder.
            content: the whole file.
            size: of it, in bytes.
            sha256: of it.
            start: the first byte that is sent; those before are there already.
            tell: given the number of bytes sent, now and then.
        """
        self._say({"op": "put", "path": path, "size": size, "sha256": sha256, "start": start})
        content.seek(start)
        for piece in iter(lambda: content.read(_CHUNK), b""):
            self._write(piece)
            tell(content.tell() - start)
        return bool(self._answer(_ANSWER_S, "whole")["whole"])

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_s: float,
        tell: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Runs a command in the worker's folder.

        Args:
            argv: program and arguments.
            env: variables besides those that are there.
            timeout_s: after which it is ended.
            tell: given each line that it says on stderr, at once.
        """
        self._say({"op": "run", "argv": list(argv), "env": dict(env), "timeout_s": timeout_s})
        said: deque[str] = deque(maxlen=_LAST_LINES)

        def hear(line: str) -> None:
            said.append(line)
            if tell is not None:
                tell(line)

        try:
            answer = self._answer(timeout_s + _GRACE_S, "exit", hear)
        except BackendError:
            raise
        except BaseException:  # interrupted: what runs there ends before the folder is removed
            with contextlib.suppress(BackendError):
                self._say({"op": "stop"})
                self._answer(_GRACE_S, "exit", lambda line: None)
            raise
        if answer["why"] and answer["exit"] is not None:
            said.append(answer["why"])
        return CommandResult(answer["exit"], answer["stdout"], tuple(said))

    def close(self, remove: bool) -> None:
        """Ends the worker, and removes its folder unless it is to stay."""
        self._say({"op": "close", "remove": remove})
        self._answer(_ANSWER_S, "closed")

    def _say(self, message: Mapping[str, object]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):  # it ended, or was closed when it had
            raise self._broken() from None

    def _answer(
        self, timeout_s: float, key: str, hear: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """The next message with a key; signs of life keep the worker from believing that nobody is there."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                message = self._messages.get(timeout=_TICK_S)
            except queue.Empty:
                if self.root:
                    self._say({"op": "alive"})
                continue
            if message is None:
                raise self._broken()
            if "error" in message:
                self._error = message["error"]
                raise self._broken()
            if "stderr" in message and hear is not None:
                hear(message["stderr"])
            if key in message:
                return message
        raise BackendError(f"{self.target} did not answer within {timeout_s:.0f} s")

    def _broken(self) -> BackendError:
        """Why the connection is of no use any more, after whatever it said last was read."""
        self._end()
        while (message := self._next()) is not None:
            self._error = message.get("error", self._error)
        assert self._process is not None
        if self._error is not None:
            return BackendError(f"{self.target}: {self._error}")
        return BackendError(
            _reason(self.target, self._python, self._process.returncode, list(self._last), self.root)
        )

    def _next(self) -> dict[str, Any] | None:
        with contextlib.suppress(queue.Empty):
            return self._messages.get_nowait()
        return None

    def _end(self) -> None:
        """Closes the connection; the worker ends by that, if it has not."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_TICK_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join(_TICK_S)

    def _read_messages(self, stream: IO[bytes]) -> None:
        marked = False
        for line in stream:
            if not marked:
                marked = line.strip() == ssh_worker.MARK.encode()
                continue
            with contextlib.suppress(ValueError):
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        for line in stream:
            if text := line.decode(errors="replace").strip():
                self._last.append(text)


def _reason(target: SshTarget, python: str, status: int, lines: Sequence[str], root: str) -> str:
    """What a person can do about a connection that ended; what ssh said decides."""
    said = "\n".join(lines)
    last = library_text(lines[-1]) if lines else f"ssh ended with {status}"
    by_hand = shortened(
        " ".join(["ssh", *(["-p", str(target.port)] if target.port else []), str(target)]), 80
    )
    if root:
        return (
            f"the connection to {target} broke: {last}; what was copied stays there in {root}, "
            "and the next `pocketvl profile` goes on from it"
        )
    if _SHORT_PYTHON in said:
        version = said.rpartition(_SHORT_PYTHON)[2].split()[0]
        return (
            f"{python} on {target} is Python {version}: pocketvl needs 3.11 or newer; name one with --python"
        )
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return (
            f"the host key of {target} has changed: another machine answers, or it was installed anew; "
            f"if that is so, remove the old key (ssh-keygen -R) and connect once by hand: {by_hand}"
        )
    if "Host key verification failed" in said:
        return f"{target} is not among the known hosts: connect once by hand, and compare its key: {by_hand}"
    if "Permission denied (" in said:
        return f"{target} refuses the login ({last}): it must work without a password, as by hand: {by_hand}"
    if status == 127:
        return (
            f"{target} has no {python}: install it there (apt install python3-venv), or name one by --python"
        )
    if status == 255:
        return f"{target} cannot be reached: {last}"
    return f"{python} on {target} ended with {status}: {last}"
