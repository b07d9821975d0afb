"""`pocketvl profile BUNDLE --ssh` against the emulated Raspberry Pi, behind a real sshd on the loopback.

    python -m tests.pi.profile build/pi BUNDLE

shows the whole way that a real one takes, but for its speed: what it prints is no Pi's latency, and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.devices.sshd import MISSING, board
from tests.pi.check import make_venv


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
def main(root: Path, bundle: Path) -> None:
    """Profile BUNDLE on the emulated Pi in ROOT; the result goes into ROOT, not into the bundle."""
    if MISSING:
        raise click.ClickException(MISSING)
    python, out = make_venv(root), root.absolute() / f"profile-{bundle.name}.json"
    with tempfile.TemporaryDirectory(prefix="pocketvl-board-") as folder, board(Path(folder) / "board") as pi:
        command = [sys.executable, "-c", "from pocketvl.cli import main; main()", "profile", str(bundle)]
        command += [
            "--ssh",
            pi.target,
            "--python",
            str(python),
            "--runs",
            "3",
            "--threads",
            "1",
            "-o",
            str(out),
        ]
        env = {**os.environ, "PATH": f"{pi.bin}{os.pathsep}{os.environ['PATH']}"}
        sys.exit(subprocess.run(command, env=env, check=False).returncode)


if __name__ == "__main__":
    main()
