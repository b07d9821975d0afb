"""A real sshd on the loopback, with keys and a configuration of its own: the board that tests reach."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = next(
    (
        f"no {name}: make pi-packages"
        for name, there in (
            ("sshd", SSHD),
            ("ssh", shutil.which("ssh")),
            ("ssh-keygen", shutil.which("ssh-keygen")),
        )
        if there is None
    ),
    "",
)
"""Why there can be no server here; empty: there can."""

_START_S = 20.0
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
PidFile none
AuthorizedKeysFile {root}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={root}/home XDG_CACHE_HOME={cache} PATH={path} {env}
{more}
"""
_CLIENT = """\
Host board
    HostName 127.0.0.1
    Port {port}
Host *
    IdentityFile {root}/key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {root}/known_hosts
    GlobalKnownHostsFile none
"""


@dataclass
class Board:
    """A server that runs, and how to reach it.

    Attributes:
        root: its folder: keys, configurations, home.
        port: on 127.0.0.1.
        bin: a folder with an `ssh` that is the system's, with the test's configuration instead of the user's.
        cache: what XDG_CACHE_HOME is there.
        process: the listening server.
    """

    root: Path
    port: int
    bin: Path
    cache: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def target(self) -> str:
        """How a user names it."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Kills the server's children: every connection that is open."""
        for pid in children(self.process.pid):
            for below in children(pid):  # the one that has the user's rights
                _kill(below, only="sshd")
            _kill(pid, only="sshd")

    def left(self) -> list[str]:
        """Files that are in the cache there."""
        return sorted(str(path.relative_to(self.cache)) for path in self.cache.rglob("*") if path.is_file())

    def running(self) -> list[str]:
        """Command lines of what runs in the environment of its logins."""
        return list(_command_lines(f"XDG_CACHE_HOME={self.cache}".encode()))


@contextmanager
def board(
    root: Path, path: Sequence[Path] = (), more: str = "", env: str = "", tmpfs: str | None = None
) -> Iterator[Board]:
    """Runs a server as the user of the tests.

    A server of root wants /run/sshd, which it gets in a mount namespace, so that the machine is not changed.

    Args:
        root: an empty folder.
        path: folders before the usual ones of PATH there.
        more: lines of sshd_config.
        env: `NAME=VALUE` pairs, as SetEnv takes them.
        tmpfs: options of a file system for the cache, e.g. "size=1m"; root only.
    """
    assert SSHD is not None
    cache, tools = root / "cache", root / "bin"
    for folder in (root / "home", cache, tools):
        folder.mkdir(parents=True)
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
    shutil.copy(root / "key.pub", root / "authorized_keys")
    port = _free_port()
    folders = ":".join(map(str, (*path, "/usr/local/bin", "/usr/bin", "/bin")))
    (root / "sshd_config").write_text(
        _SERVER.format(root=root, port=port, cache=cache, path=folders, more=more, env=env)
    )
    know_host(root, port)
    (root / "ssh_config").write_text(_CLIENT.format(root=root, port=port))
    real = shutil.which("ssh")
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {root}/ssh_config "$@"\n')
    (tools / "ssh").chmod(0o755)
    command = [SSHD, "-D", "-e", "-f", str(root / "sshd_config")]
    if os.geteuid() == 0:
        mounts = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd"
        if tmpfs:
            mounts += f" && mount -t tmpfs -o {tmpfs} tmpfs {cache}"
        command = ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {shlex.join(command)}"]
    with (root / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, port, root / "sshd.log")
        yield Board(root, port, tools, cache, process)
    finally:
        process.terminate()
        process.wait()


def know_host(root: Path, port: int, key: str = "host_key.pub") -> None:
    """Writes a key into the test's known_hosts."""
    kind, public = (root / key).read_text().split()[:2]
    (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {public}\n")


def children(pid: int) -> list[int]:
    """Processes that a process started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(after[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def process_name(pid: int) -> str:
    """What the kernel calls a process; empty: it ended."""
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _kill(pid: int, only: str) -> None:
    if process_name(pid).startswith(only):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _command_lines(variable: bytes) -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (folder / "environ").read_bytes().split(b"\0"):
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended, or is another user's
            continue


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")
