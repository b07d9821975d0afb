"""The runtime's wheel that devices get, against what is written down for the one that is built."""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

from pocketvl.devices.runtime_wheel import runtime_wheel
from pocketvl_runtime.version import __version__

RUNTIME = Path(__file__).parents[2] / "runtime"


def test_it_holds_the_package_and_what_its_project_needs() -> None:
    wheel = runtime_wheel()
    assert wheel.name == f"pocketvl_runtime-{__version__}-py3-none-any.whl"
    project = tomllib.loads((RUNTIME / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(
            archive.read(f"pocketvl_runtime-{__version__}.dist-info/METADATA").decode()
        )
        modules = {p.relative_to(RUNTIME).as_posix() for p in (RUNTIME / "pocketvl_runtime").rglob("*.py")}
        assert modules | {"pocketvl_runtime/py.typed"} <= names
        for module in modules:
            assert archive.read(module) == (RUNTIME / module).read_bytes()
    assert metadata["Requires-Python"] == project["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    for extra, wanted in (("", project["dependencies"]), *project["optional-dependencies"].items()):
        active = {
            (need.name, str(need.specifier))
            for need in needed
            if (need.marker is None and not extra)
            or (need.marker and extra and need.marker.evaluate({"extra": extra}))
        }
        assert active == {(each.name, str(each.specifier)) for each in map(Requirement, wanted)}


def test_it_is_the_same_every_time_and_its_record_is_right() -> None:
    wheel = runtime_wheel()
    assert runtime_wheel() == wheel
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        record = archive.read(f"pocketvl_runtime-{__version__}.dist-info/RECORD").decode().splitlines()
        assert {row.split(",")[0] for row in record} == set(archive.namelist())
        for name, digest, size in (row.split(",") for row in record[:-1]):
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(data))
