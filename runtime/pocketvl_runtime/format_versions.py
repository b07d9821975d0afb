"""Versions of file formats, `major.minor`: another major is refused, what a newer minor adds is ignored."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pocketvl_runtime.errors import BundleError, quoted

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")


@dataclass(frozen=True)
class FormatVersion:
    """The version of a format that this runtime writes.

    Attributes:
        older_advice: what to do about a file of an older major version.
    """

    major: int
    minor: int
    older_advice: str

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def is_newer(self, version: object) -> bool:
        """Whether a file's version is of a newer minor than this one: unknown keys in it are ignored.

        Raises:
            BundleError: it is no version, or of another major; the message says what to do.
        """
        match = _VERSION.fullmatch(version) if isinstance(version, str) else None
        if match is None:
            raise BundleError(f"version is {quoted(version)}, and must be like '{self}'")
        major, minor = int(match[1]), int(match[2])
        if major == self.major:
            return minor > self.minor
        advice = "pip install --upgrade pocketvl-runtime" if major > self.major else self.older_advice
        raise BundleError(f"version is {version}, and this runtime reads {self.major}.x; {advice}")
