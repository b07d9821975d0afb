"""Versions of the bundle format: `major.minor`."""

from __future__ import annotations

import re

from pocketvl_runtime.errors import BundleError, quoted

MAJOR, MINOR = 2, 0
FORMAT_VERSION = f"{MAJOR}.{MINOR}"

_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


def is_newer(version: object) -> bool:
    """Whether a version has a newer minor number than this runtime knows: what is unknown in it is ignored.

    Raises:
        BundleError: it is no version, or of another major number; the message says what to install.
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise BundleError(f"version is {quoted(version)}, and must be like {FORMAT_VERSION!r}")
    major, minor = int(match[1]), int(match[2])
    if major == MAJOR:
        return minor > MINOR
    advice = (
        "pip install --upgrade pocketvl-runtime"
        if major > MAJOR
        else "export the bundle again, or install the pocketvl-runtime that it was made for"
    )
    raise BundleError(f"version is {version}, and this runtime reads {MAJOR}.x; {advice}")
