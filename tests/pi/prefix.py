"""A Raspberry Pi's Python on a PC: Debian's arm64 packages, unpacked into a folder, under qemu.

    python -m tests.pi.prefix build/pi

writes `prefix/` (Python with venv and pip's wheel, and the libraries they need), `qemu-aarch64` (a static
one) and `bin/python3`, which runs the one under the other as `python3` on a Pi would run: `-m venv` makes
environments with it, into which pip installs aarch64 wheels. Nothing is installed on the machine, and root is
not needed: apt works in a folder, with lists and architectures of its own. Of the machine's apt, only the
address of the Debian mirror is taken (or that of DEBIAN_MIRROR). apt checks packages against the signed lists
of the release.

The processor is always named: cortex-a76 is a Raspberry Pi 5, and with PI_CPU=cortex-a72 in its environment
`python3` is a Pi 4's. qemu's own choice, `max`, has SVE, which Pis have not, and under which int8 was
silently wrong. qemu below 10 falls over the host's /proc/cpuinfo, so that qemu is taken from the same release
as Python.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from tests.debian_packages import call, unpack_packages

# Of Debian 13, which Raspberry Pi OS of October 2025 and later is made of.
PYTHON = "python3.13"
GUEST_PACKAGES = (f"{PYTHON}-venv", "libstdc++6", "libgomp1")
HOST_PACKAGES = ("qemu-user",)
DEFAULT_CPU = "cortex-a76"

_EMULATED = """\
#!/bin/sh
# argv[0] is this script, or a link to it in an environment: Python finds its library, or pyvenv.cfg, beside
# it.
exec {root}/qemu-aarch64 -cpu "${{PI_CPU:-{cpu}}}" -L {root}/prefix -0 "$0" \\
    {root}/prefix/usr/bin/{python} "$@"
"""
_ON_PATH = """\
#!/bin/sh
exec {root}/prefix/usr/bin/python3 "$@"
"""


def make_prefix(root: Path) -> Path:
    """Writes everything into a folder; what is there already is taken as it is.

    Args:
        root: e.g. build/pi; its path may hold no space.

    Returns:
        The script that is the emulated Python.

    Raises:
        click.ClickException: something cannot be had.
    """
    root = root.absolute()
    python = root / "bin" / "python3"
    if python.exists():
        return python
    unpacked = root / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpack_packages(GUEST_PACKAGES, unpacked / "prefix", "arm64")
    unpack_packages(HOST_PACKAGES, unpacked / "host")
    if not (unpacked / "prefix" / "lib").exists():
        (unpacked / "prefix" / "lib").symlink_to(
            "usr/lib"
        )  # as in every Debian; the loader is named by /lib/...
    shutil.rmtree(root / "prefix", ignore_errors=True)
    (unpacked / "prefix").rename(root / "prefix")
    (unpacked / "host" / "usr" / "bin" / "qemu-aarch64").replace(root / "qemu-aarch64")
    shutil.rmtree(unpacked)
    _name_wheels(root / "prefix")
    emulated = root / "prefix" / "usr" / "bin" / "python3"
    _write_script(emulated, _EMULATED.format(root=root, python=PYTHON, cpu=DEFAULT_CPU))
    machine = call(
        str(emulated), "-c", "import ctypes, platform, ssl, venv; print(platform.machine())"
    ).strip()
    if machine != "aarch64":
        raise click.ClickException(f"the emulated Python says that it runs on {machine!r}, not on aarch64")
    _write_script(python, _ON_PATH.format(root=root))  # last: where it is, everything is
    return python


def _name_wheels(prefix: Path) -> None:
    """Tells Python where pip's wheel really is: for its extended attributes, qemu looks elsewhere."""
    for file in (prefix / "usr" / "lib" / PYTHON).glob("_sysconfigdata_*.py"):
        if not file.is_symlink():
            text = file.read_text()
            file.write_text(
                text.replace("'/usr/share/python-wheels/'", f"'{prefix}/usr/share/python-wheels/'")
            )


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
def main(root: Path) -> None:
    """Make a Raspberry Pi's Python in ROOT; nothing where it is already."""
    click.echo(make_prefix(root))


if __name__ == "__main__":
    main()
