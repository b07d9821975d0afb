"""What goes into the wheels and sdists, and what the lock files say."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from pocketvl_runtime.version import __version__

ROOT = Path(__file__).parents[2]
LOCKS = ("export.txt", "runtime.txt", "uv.txt")


def sources(package: Path) -> set[str]:
    """Every file of a package but Python's own caches, relative to the folder that holds it."""
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def locked(name: str) -> dict[str, str]:
    """Version by package for Python 3.11, without what a marker keeps for others."""
    lines = re.findall(r"^([\w.-]+)==(\S+)(.*)$", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    return {package: version for package, version, rest in lines if ">= '3.12'" not in rest}


def test_the_runtime_wheel_holds_the_runtime_alone(runtime_dist: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(runtime_dist[0]).namelist())
    metadata = {name for name in names if name.startswith(f"pocketvl_runtime-{__version__}.dist-info/")}
    assert names - metadata == sources(ROOT / "runtime" / "pocketvl_runtime")
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_runtime_sdist_holds_the_runtime_alone(runtime_dist: tuple[Path, Path]) -> None:
    top = f"pocketvl_runtime-{__version__}/"
    with tarfile.open(runtime_dist[1]) as archive:
        names = {name.removeprefix(top) for name in archive.getnames()}
    beside = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names - beside == sources(ROOT / "runtime" / "pocketvl_runtime")


def test_the_pocketvl_wheel_holds_both_packages_whole(pocketvl_dist: tuple[Path, Path]) -> None:
    """The wheel is built from the sdist, so this says that the sdist is whole, too."""
    names = {name for name in zipfile.ZipFile(pocketvl_dist[0]).namelist() if ".dist-info/" not in name}
    assert names == sources(ROOT / "exporter" / "pocketvl") | sources(ROOT / "runtime" / "pocketvl_runtime")
    assert {"pocketvl/py.typed", "pocketvl_runtime/py.typed"} <= names


@pytest.mark.parametrize("data", ["evaluate/templates/report.html.j2", "evaluate/templates/report.css"])
def test_package_data_travels(pocketvl_dist: tuple[Path, Path], data: str) -> None:
    assert f"pocketvl/{data}" in zipfile.ZipFile(pocketvl_dist[0]).namelist()


def test_the_runtime_declares_the_same_on_both_sides() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    thin = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())["project"]
    assert thin["dependencies"] == whole["dependencies"]
    assert thin["scripts"]["pocketvl-run"] == whole["scripts"]["pocketvl-run"]
    for engine, needs in thin["optional-dependencies"].items():
        assert whole["optional-dependencies"][engine] == needs
    assert (ROOT / "runtime" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_device_gets_the_versions_that_were_verified_here() -> None:
    host, device = locked("export.txt"), locked("runtime.txt")
    shared = host.keys() & device.keys()
    assert {"numpy", "pillow", "tokenizers", "onnxruntime", "ai-edge-litert"} <= shared
    assert {name: host[name] for name in shared} == {name: device[name] for name in shared}
    assert not {"torch", "onnx", "transformers", "tensorflow-cpu"} & device.keys()


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"://|index-url|find-links|trusted-host", text)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+==\S", entry), entry
        assert "--hash=sha256:" in entry, entry
