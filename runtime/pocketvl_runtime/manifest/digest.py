"""The checksum that a manifest carries of itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pocketvl_runtime.errors import BundleError

DIGEST_KEY = "manifest_sha256"
_PLAIN = json.JSONEncoder(ensure_ascii=False)


def manifest_digest(text: str | bytes) -> str:
    """SHA-256 of a manifest without its `manifest_sha256`, as lower-case hex digits.

    Of its canonical form: keys sorted by code points, no white space, UTF-8, numbers as they stand in `text`,
    in strings only `"`, backslash and what lies below U+0020 escaped.

    Args:
        text: a JSON object that `parse_json` takes.

    Raises:
        BundleError: it holds half a surrogate pair, or is nested too deep.
    """
    try:
        value: dict[str, Any] = json.loads(text, parse_float=_Number, parse_int=_Number)
        value.pop(DIGEST_KEY, None)
        return hashlib.sha256(_canonical(value).encode("utf-8")).hexdigest()
    except (UnicodeEncodeError, RecursionError) as error:
        raise BundleError(f"has no canonical form ({error})") from error


class _Number(str):
    """A number as it is written: 1e-5 and 0.00001 are one number, and two languages print it in two ways."""

    __slots__ = ()


def _canonical(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_canonical(key)}:{_canonical(item)}" for key, item in sorted(value.items()))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, _Number):
        return str(value)
    return _PLAIN.encode(value)
