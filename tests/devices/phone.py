"""A phone without a phone: Debian's real adbd on loopback, in namespaces of its own.

    python -m tests.devices.phone build/adb     # unpacks adb and adbd there

What a program sees there is this machine under another root folder: /data/local/tmp is in memory, as large as
is asked for. adb's server runs in the same namespace, and a script named `adb` brings its client there; so
neither the machine's adb, nor its keys, nor phones that are connected to it are touched.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from tests.debian_packages import unpack_packages

PACKAGES = Path(os.environ.get("POCKETVL_ADB_PACKAGES", Path(__file__).parents[2] / "build" / "adb"))
SERIAL = "127.0.0.1:5555"
_SCRIPT = Path(__file__).with_name("phone.sh")
_ADBD = "usr/lib/android-sdk/platform-tools/adbd"
_CLIENT = """\
#!/bin/sh
libraries={packages}/usr/lib/x86_64-linux-gnu
exec nsenter -t {pid} -U -n --preserve-credentials "$libraries/ld-linux-x86-64.so.2" \
--library-path "$libraries:$libraries/android" {packages}/usr/lib/android-sdk/platform-tools/adb "$@"
"""


def obstacle() -> str | None:
    """Why there can be no such phone here; None where there can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the phone on loopback is for x86-64 Linux"
    if not (PACKAGES / _ADBD).exists():
        return f"no adbd in {PACKAGES}: make adb-packages"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "no unshare or nsenter: apt-get install util-linux"
    tried = subprocess.run(
        ["unshare", "-rnm", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return None if tried.returncode == 0 else f"this machine makes no namespaces: {tried.stderr.strip()}"


class Phone:
    """Runs as long as the context does.

    Args:
        folder: empty; the script `adb` is put into its `bin`.
        size: of what can be stored on it, as tmpfs has it.
        commands: by name, shell scripts that are commands there, such as Android's `am`.
    """

    serial = SERIAL

    def __init__(self, folder: Path, size: str = "200m", commands: Mapping[str, str] | None = None) -> None:
        self.bin = folder / "bin"
        self._commands = commands or {}
        self._folder = folder
        self._size = size

    def __enter__(self) -> Self:
        root = self._folder / "root"
        root.mkdir()
        self.bin.mkdir()
        (self._folder / "commands").mkdir()
        for name, script in self._commands.items():
            (self._folder / "commands" / name).write_text(f"#!/bin/sh\n{script}")
            (self._folder / "commands" / name).chmod(0o755)
        self._log = (self._folder / "log").open("wb")
        command = ["unshare", "-rnm", "--pid", "--fork", "--kill-child", "sh", str(_SCRIPT), str(root)]
        command += [str(PACKAGES), self._size, str(self._folder / "commands")]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder)}  # adb makes its keys there
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        try:
            self._wait_until_connected()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def adb(self, *arguments: str) -> str:
        """What the real adb says to a command for this phone."""
        done = subprocess.run(
            [self.bin / "adb", "-s", SERIAL, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    def vanish(self) -> None:
        """Ends adbd, as if the cable were pulled; not to be undone."""
        for pid in _children(self._init()):
            if _ADBD.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, 9)

    def _init(self) -> int:
        return next(iter(_children(self._process.pid)))

    def _wait_until_connected(self) -> None:
        client = self.bin / "adb"
        for _ in range(300):  # a busy machine takes its time
            time.sleep(0.1)
            if b"started" not in (self._folder / "log").read_bytes():
                continue
            client.write_text(_CLIENT.format(packages=PACKAGES, pid=self._init()))
            client.chmod(0o755)
            environment = {**os.environ, "HOME": str(self._folder)}
            said = subprocess.run(
                [client, "connect", SERIAL],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env=environment,
            )
            if said.stdout.startswith("connected") and "device" in self.adb("get-state"):
                return
        raise RuntimeError(f"adbd did not start: {(self._folder / 'log').read_text(errors='replace')[-500:]}")

    def _stop(self) -> None:
        self._process.kill()  # --kill-child: and everything in its namespace
        self._process.wait()
        self._log.close()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Unpack adb and adbd into FOLDER; nothing where they are already."""
    if not (folder / _ADBD).exists():
        click.echo(f"unpacking adb and adbd of Debian into {folder}", err=True)
        unpack_packages(["adb", "adbd"], folder)


if __name__ == "__main__":
    main()
