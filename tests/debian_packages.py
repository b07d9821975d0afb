"""Debian's packages, unpacked without root: of another release or architecture than the machine's, too."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

RELEASE = "trixie"
_KEYS = (
    Path(f"/usr/share/keyrings/debian-archive-{RELEASE}-stable.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
_CONFIG = """\
Dir "{root}";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def unpack_packages(packages: Sequence[str], out: Path, architecture: str | None = None) -> None:
    """Unpacks packages and all that they depend on; apt checks them against the release's signed lists.

    Args:
        packages: names.
        out: the folder; appears once everything is in it.
        architecture: Debian's name of it; by default the machine's own.

    Raises:
        click.ClickException: they cannot be had.
    """
    if any(shutil.which(command) is None for command in ("apt-get", "dpkg", "dpkg-deb")):
        raise click.ClickException(
            f"{', '.join(packages)} are taken from Debian, and this is none: run it there"
        )
    keys = next((keys for keys in _KEYS if keys.exists()), None)
    if keys is None:
        raise click.ClickException(
            f"no keys of Debian {RELEASE} in {_KEYS[0].parent}: apt-get install debian-archive-keyring"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=out.parent) as folder:
        apt = Path(folder).absolute()
        for place in ("state/lists/partial", "cache/archives/partial"):
            (apt / place).mkdir(parents=True)
        (apt / "status").touch()  # nothing is installed there, so everything is downloaded
        (apt / "sources.list").write_text(f"deb [signed-by={keys}] {_mirror()} {RELEASE} main\n")
        user = "root" if os.geteuid() == 0 else ""  # apt's own user could not write here
        chosen = architecture or call("dpkg", "--print-architecture").strip()
        (apt / "apt.conf").write_text(_CONFIG.format(root=apt, architecture=chosen, user=user))
        get = ("apt-get", "-qq", "-c", str(apt / "apt.conf"))
        call(*get, "--error-on=any", "update")
        call(*get, "install", "--download-only", "--yes", "--no-install-recommends", *packages)
        for package in (apt / "cache/archives").glob("*.deb"):
            call("dpkg-deb", "--extract", str(package), str(apt / "root"))
        shutil.rmtree(out, ignore_errors=True)
        (apt / "root").rename(out)


def _mirror() -> str:
    """Where Debian is downloaded from, as the machine's own apt has it."""
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named
    listed = call("apt-get", "indextargets", "--format", "$(CREATED_BY) $(LABEL) $(COMPONENT) $(REPO_URI)")
    for line in listed.splitlines():
        if line.startswith("Packages Debian main "):
            return line.rpartition(" ")[2]
    raise click.ClickException(
        "apt knows no mirror of Debian: apt-get update, or set DEBIAN_MIRROR to an address"
    )


def call(*command: str) -> str:
    """Runs a command; gives what it printed.

    Raises:
        click.ClickException: it failed; the message holds its last line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise click.ClickException(f"{Path(command[0]).name} failed ({done.returncode}): {lines[-1]}")
    return done.stdout
