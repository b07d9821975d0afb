"""The programs that a build needs from the system, and how they are run."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = {
    "aapt2": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
    "mvn": "maven",
}


class BuildError(Exception):
    """A step failed; the message says which, and what to do."""


def require(names: Sequence[str] = tuple(PROGRAMS)) -> None:
    """Check that programs are there.

    Raises:
        BuildError: some are not; names the packages to install.
    """
    missing = sorted({PROGRAMS[name] for name in names if shutil.which(name) is None})
    if missing:
        raise BuildError(
            f"the build needs {', '.join(missing)}: "
            f"make android-packages, or apt-get install {' '.join(missing)}"
        )


def run(step: str, *command: str | Path, folder: Path | None = None) -> str:
    """Run a program and return what it prints.

    Raises:
        BuildError: it failed; holds the end of what it said.
    """
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BuildError(f"{step} failed:\n{result.stdout[-4000:].rstrip()}")
    return result.stdout


def java_home() -> Path:
    """The folder of the JDK that compiles."""
    found = shutil.which("javac")
    if found is None:
        raise BuildError("javac is missing: make android-packages")
    return Path(found).resolve().parents[1]
