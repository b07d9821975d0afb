"""The device's runtime as a wheel, made of the package that this process has imported."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pocketvl_runtime
from pocketvl_runtime.version import __version__

_EXTRAS = ("litert", "onnx")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Wheel:
    """A wheel: the same bytes for the same package.

    Attributes:
        name: of its file.
        content: its bytes.
    """

    name: str
    content: bytes


def runtime_wheel() -> Wheel:
    """The wheel of `pocketvl-runtime`, with its extras `litert` and `onnx`.

    Where pocketvl is installed, there is neither a source tree nor a build backend, but the package itself.
    """
    package = Path(pocketvl_runtime.__file__).parent
    info = f"pocketvl_runtime-{__version__}.dist-info"
    files = {
        f"pocketvl_runtime/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = "\n".join([*_metadata(), ""]).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: pocketvl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\npocketvl-run = pocketvl_runtime.cli:main\n"
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return Wheel(f"pocketvl_runtime-{__version__}-py3-none-any.whl", out.getvalue())


def _metadata() -> Iterator[str]:
    """The runtime is a part of pocketvl, and needs what that needs without its extras; engines are extras."""
    yield from ("Metadata-Version: 2.1", "Name: pocketvl-runtime", f"Version: {__version__}")
    yield "Requires-Python: >=3.11"
    yield from (f"Provides-Extra: {extra}" for extra in _EXTRAS)
    for requirement in importlib.metadata.requires("pocketvl") or ():
        extra = re.search(r"extra == ['\"]([^'\"]*)['\"]", requirement)
        if extra is None or extra[1] in _EXTRAS:
            yield f"Requires-Dist: {requirement}"


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
