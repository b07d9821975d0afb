"""Take from a bundle the variants of some engines: a smaller bundle, valid by the same rules."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from android_demo.packaging.toolchain import BuildError

MANIFEST = "manifest.json"
_CHECKSUM = "manifest_sha256"
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class _Number(str):
    """A number as it is written in the file: its text is part of the manifest's checksum."""


def read_bundle(folder: Path, engines: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Yield paths and contents of a bundle's files, those left out that only variants of other engines use.

    The manifest says no more than what is there, with a checksum anew. What was measured (report.json,
    profiles) is not among a manifest's files and is left out.

    Raises:
        BuildError: the folder is no bundle, a file is missing or damaged, or no variant is left.
    """
    manifest = _read_manifest(folder)
    kept = {name: each for name, each in manifest["variants"].items() if each["engine"] in engines}
    if not kept:
        raise BuildError(
            f"{folder} has no variant for {' or '.join(sorted(engines))}: export one, or name another bundle"
        )
    used = _graph_files(kept)
    dropped = _graph_files(manifest["variants"]) - used
    manifest["variants"] = kept
    manifest["files"] = {path: entry for path, entry in manifest["files"].items() if path not in dropped}
    manifest[_CHECKSUM] = hashlib.sha256(canonical({**manifest}, without=_CHECKSUM).encode()).hexdigest()
    yield MANIFEST, canonical(manifest).encode()
    for path, entry in sorted(manifest["files"].items()):
        yield path, _read_file(folder, path, entry["sha256"])


def canonical(value: Any, *, without: str | None = None) -> str:
    """The canonical form of docs/BUNDLE.md, of JSON whose numbers are still text."""
    if isinstance(value, dict):
        pairs = (f"{_string(key)}:{canonical(value[key])}" for key in sorted(value) if key != without)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, _Number):
        return str(value)
    return _string(value) if isinstance(value, str) else json.dumps(value)


def _string(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / MANIFEST).read_text("utf-8")
        manifest = json.loads(text, parse_float=_Number, parse_int=_Number)
        digest = hashlib.sha256(canonical(manifest, without=_CHECKSUM).encode()).hexdigest()
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{folder} is no bundle ({error}): make export, or name others with BUNDLES="
        ) from error
    if not isinstance(manifest, dict) or manifest.get(_CHECKSUM) != digest:
        raise BuildError(f"{folder / MANIFEST} is damaged or of format 1: export the bundle again")
    return manifest


def _graph_files(variants: dict[str, Any]) -> set[str]:
    return {stored["file"] for variant in variants.values() for stored in variant["files"].values()}


def _read_file(folder: Path, path: str, sha256: str) -> bytes:
    try:
        content = (folder / path).read_bytes()
    except OSError as error:
        raise BuildError(f"{folder / path} cannot be read ({error}): export the bundle again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BuildError(f"{folder / path} is damaged: export the bundle again")
    return content
