"""Splits that never overlap: which one a picture is in follows from its bytes alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pocketvl.errors import DataError
from pocketvl_runtime.errors import quoted

REST = "rest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_MOST_PARTS = 16
_COVERED = 1 - 1e-9  # what shares such as 0.7, 0.2 and 0.1 come to, in floats


@dataclass(frozen=True)
class Part:
    """A split that is asked for.

    Attributes:
        name: of its folder.
        count: how many pictures, exactly.
        share: in (0, 1], of the pictures that no count took. Where both are None: all that others leave.
    """

    name: str
    count: int | None = None
    share: float | None = None


def parse_splits(text: str) -> tuple[Part, ...]:
    """Parts from `train=rest,calibration=500,test=0.1`.

    Raises:
        DataError: it is of another form, or the shares are more than the whole.
    """
    parts = tuple(_part(each.strip()) for each in text.split(","))
    if len({part.name for part in parts}) < len(parts) or len(parts) > _MOST_PARTS:
        raise DataError(f"--split: {quoted(text)} names one twice, or more than {_MOST_PARTS}")
    if sum(part.share or 0 for part in parts) > 1 / _COVERED:
        raise DataError(f"--split: the shares in {quoted(text)} are more than the whole")
    if sum(part.count is None and part.share is None for part in parts) > 1:
        raise DataError(f"--split: only one of {quoted(text)} can take the rest")
    return parts


def _part(text: str) -> Part:
    name, _, size = text.partition("=")
    if _NAME.fullmatch(name):
        if size == REST:
            return Part(name)
        if re.fullmatch(r"[0-9]{1,9}", size) and int(size) > 0:
            return Part(name, count=int(size))
        if re.fullmatch(r"0?\.[0-9]{1,9}|1\.0", size) and float(size) > 0:
            return Part(name, share=float(size))
    raise DataError(f"--split: {quoted(text)} is not of the form test=0.1 (a share), test=500 or train=rest")


def divide(digests: Collection[str], parts: Sequence[Part]) -> dict[str, str]:
    """The split of each picture that is in one.

    Counts take the pictures whose hashes are lowest. A share is an interval of the range of another hash: its
    size is near the share, not equal to it, and where there are shares alone, a picture stays in its split
    when others come to the data.

    Args:
        digests: SHA-256 of the pictures' bytes; each once.
        parts: what is asked for.

    Returns:
        By digest the name of a part; pictures that no part takes are left out.

    Raises:
        DataError: there are too few pictures.
    """
    left = sorted(digests, key=lambda digest: _hash("count", digest))
    found: dict[str, str] = {}
    for part in parts:
        if part.count is not None:
            if part.count > len(left):
                raise DataError(
                    f"--split: {part.name}={part.count} is more than the {len(left)} different pictures left"
                )
            found |= dict.fromkeys(left[: part.count], part.name)
            left = left[part.count :]
    rest = next((part.name for part in parts if part.count is None and part.share is None), None)
    shares = [(part.name, part.share) for part in parts if part.share is not None]
    for digest in left:
        at, upper = _hash("share", digest) / 2**64, 0.0
        for name, share in shares:
            upper += share
            if at < upper or upper > _COVERED:
                found[digest] = name
                break
        else:
            if rest is not None:
                found[digest] = rest
    empty = [part.name for part in parts if part.name not in set(found.values())]
    if empty:
        raise DataError(
            f"--split: {len(digests)} different pictures leave none for {empty[0]}; give a number of them"
        )
    return found


def _hash(purpose: str, digest: str) -> int:
    """A number below 2^64, of a picture and a purpose alone."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {digest}".encode()).digest()[:8], "big")
