"""Profiles a bundle on a phone that is this machine: the real adb, the real adbd, the program built from C.

    python -m tests.devices.loopback BUNDLE PROGRAM -o PROFILE

The engine is the AAR's own x86-64 library, on a desktop's processor: the figures are no phone's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.devices.phone import Phone, obstacle

_START = "from pocketvl.cli import main; main()"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("program", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where the profile goes.")
@click.option("--runs", default=30, show_default=True, help="Counted runs.")
@click.option("--duration", default=5.0, show_default=True, help="Seconds of sustained load.")
def main(bundle: Path, program: Path, out: Path, runs: int, duration: float) -> None:
    """Run `pocketvl profile BUNDLE --adb ... --binary PROGRAM`."""
    if (reason := obstacle()) is not None:
        raise click.ClickException(reason)
    with tempfile.TemporaryDirectory(prefix="pocketvl-phone-") as folder, Phone(Path(folder)) as phone:
        environment = {**os.environ, "PATH": f"{phone.bin}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, "-c", _START, "profile", str(bundle), "--adb", phone.serial]
        command += ["--binary", str(program), "--all-variants", "-o", str(out)]
        command += ["--runs", str(runs), "--duration", f"{duration:g}"]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
