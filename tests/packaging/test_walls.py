"""The walls between the parts stand, and the checks that guard them would notice a hole."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime" / "pocketvl_runtime"
RUNTIME_MAY = {"numpy", "PIL", "tokenizers", "click", "pocketvl_runtime"}
LEAN = (
    "pocketvl.cli",
    "pocketvl.compress.methods",
    "pocketvl.console",
    "pocketvl.devices",
    "pocketvl.pipelines",
    "pocketvl.recipes",
    "pocketvl.stage",
    "pocketvl.tabletop.painting",
    "pocketvl.tabletop.train",
    "pocketvl_runtime.cli",
)
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "tensorflow",
    "transformers",
    "matplotlib",
    "litert_torch",
    "ai_edge_litert",
    "accelerate",
    "jinja2",
    "onnxsim",
    "optuna",
    "safetensors",
    "scipy",
}
# Prints, after every module of the packages it is given, what has been imported so far.
IMPORT_EACH = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    below = pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}.")
    for module in [name, *(each.name for each in below)]:
        importlib.import_module(module)
        print(module, *sys.modules)
"""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module).split(".")[0]


def test_the_runtime_imports_only_what_a_device_has() -> None:
    backends = {"onnx.py": {"onnxruntime"}, "litert.py": {"ai_edge_litert", "tflite_runtime", "tensorflow"}}
    for path in RUNTIME.rglob("*.py"):
        engines = backends.get(path.name, set()) if path.parent.name == "backends" else set()
        assert set(imports(path)) - sys.stdlib_module_names <= RUNTIME_MAY | engines, path


def test_what_starts_a_command_imports_nothing_heavy_not_even_by_way_of_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, *LEAN], capture_output=True, text=True, check=True
    )
    imported = [line.split() for line in done.stdout.splitlines()]
    assert "pocketvl.pipelines.stages.compressing" in {module for module, *_ in imported}
    first = next(((module, HEAVY & set(so_far)) for module, *so_far in imported if HEAVY & set(so_far)), None)
    assert first is None


LINTER_HOLES = {
    "exporter/pocketvl/errors.py": "import pocketvl.stage",
    "exporter/pocketvl/families/hole.py": "import pocketvl.data",
    "exporter/pocketvl/lower/hole.py": "import pocketvl.quantize",
    "exporter/pocketvl/train/hole.py": "def f() -> None:\n    import pocketvl.select",
    "runtime/pocketvl_runtime/hole.py": "import pocketvl.errors",
    "runtime/pocketvl_runtime/deep.py": "def f() -> None:\n    import torch",
    "runtime/pocketvl_runtime/engine.py": "import onnxruntime",
}
LINTER_SAYS = (
    "pocketvl.errors -> pocketvl.stage",
    "pocketvl.families.hole -> pocketvl.data",
    "pocketvl.lower.hole -> pocketvl.quantize",
    "pocketvl.train.hole -> pocketvl.select",
    "pocketvl_runtime.hole -> pocketvl.errors",
    "pocketvl_runtime.deep -> torch",
    "pocketvl_runtime.engine -> onnxruntime",
)
RUFF_HOLES = {
    "exporter/pocketvl/recipes/hole.py": "from transformers import CLIPModel",
    "exporter/pocketvl/stage/hole.py": "import torch",
    "runtime/pocketvl_runtime/hole.py": "def f() -> None:\n    import torch.nn",
    "runtime/pocketvl_runtime/back.py": "from pocketvl.errors import DataError",
    "runtime/pocketvl_runtime/engine.py": "import onnxruntime",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, to break things in."""
    for name in ("exporter", "runtime"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def call(tree: Path, tool: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a tool that finds the packages in `tree`."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments],
        cwd=tree,
        env=os.environ
        | {"PYTHONPATH": f"{tree / 'exporter'}{os.pathsep}{tree / 'runtime'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def drill(tree: Path, holes: dict[str, str]) -> None:
    for where, line in holes.items():
        with (tree / where).open("a") as stream:
            stream.write(f"\n{line}\n")


def contracts(tree: Path) -> list[dict[str, Any]]:
    """The import contracts of a tree."""
    parsed = tomllib.loads((tree / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = parsed["tool"]["importlinter"]["contracts"]
    return found


def layers(tree: Path) -> set[str]:
    """The modules that the walls stand between."""
    (walls,) = (contract for contract in contracts(tree) if contract["type"] == "layers")
    return {module for line in walls["layers"] for module in re.findall(r"[\w.]+", line)}


def vanished(tree: Path) -> set[str]:
    """Our own modules that an import contract or a list of this file names, and that are not there."""
    named = set(LEAN) | layers(tree)
    for contract in contracts(tree):
        for key in ("source_modules", "forbidden_modules", "ignore_imports"):
            named |= {module for line in contract.get(key, []) for module in re.findall(r"[\w.]+", line)}
    ours = {module for module in named if module.partition(".")[0] in ("pocketvl", "pocketvl_runtime")}
    places = {module: Path(*module.split(".")) for module in ours}
    return {
        module
        for module, place in places.items()
        if not any(
            (tree / side / place / "__init__.py").is_file() or (tree / side / f"{place}.py").is_file()
            for side in ("exporter", "runtime")
        )
    }


def unplaced(tree: Path) -> set[str]:
    """The modules and packages right below pocketvl that no layer names."""
    children = (tree / "exporter" / "pocketvl").iterdir()
    modules = {path.stem for path in children if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return {f"pocketvl.{name}" for name in modules - {"__init__"}} - layers(tree)


def test_contracts_name_what_is_there_and_every_package_has_a_layer(tree: Path) -> None:
    assert vanished(tree) == set()
    assert unplaced(tree) == set()


@pytest.mark.parametrize(
    ("side", "module"),
    [
        ("exporter", "pocketvl.observe"),
        ("exporter", "pocketvl.settings"),
        ("exporter", "pocketvl.compress"),
        ("exporter", "pocketvl.tabletop.painting"),
        ("runtime", "pocketvl_runtime.backends.litert"),
        ("runtime", "pocketvl_runtime.cli"),
    ],
)
def test_a_renamed_module_is_noticed(tree: Path, side: str, module: str) -> None:
    place = tree / side / Path(*module.split("."))
    path = place if place.is_dir() else place.with_suffix(".py")
    path.rename(path.with_name(f"renamed{path.suffix}"))
    assert module in vanished(tree)
    assert unplaced(tree) == (
        {"pocketvl.renamed"} if module.count(".") == 1 and side == "exporter" else set()
    )


def test_import_linter_passes_and_would_notice_every_hole(tree: Path) -> None:
    status, said = call(tree, "lint-imports", "--no-cache")
    assert status == 0, said
    drill(tree, LINTER_HOLES)
    status, said = call(tree, "lint-imports", "--no-cache")
    assert status == 1
    assert [hole for hole in LINTER_SAYS if hole not in said] == []


def test_ruff_passes_and_would_notice_every_hole(tree: Path) -> None:
    command = ("ruff", "check", "--no-cache", "--select", "TID", "--output-format", "concise", ".")
    status, said = call(tree, *command)
    assert status == 0, said
    drill(tree, RUFF_HOLES)
    status, said = call(tree, *command)
    assert status == 1
    assert [where for where in RUFF_HOLES if f"{where}:" not in said] == []
