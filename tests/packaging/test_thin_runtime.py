"""The runtime's wheel and one engine in an environment with nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl_runtime import load
from pocketvl_runtime.version import __version__
from tests.packaging.conftest import ROOT, ThinVenv, call

HEAVY = ("torch", "onnx", "transformers", "tensorflow", "pocketvl", "scipy", "matplotlib", "accelerate")
ENGINES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}
FIND = """
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name)]))
"""
IMPORT_ALL = """
import importlib, pkgutil
import pocketvl_runtime
for module in pkgutil.walk_packages(pocketvl_runtime.__path__, "pocketvl_runtime."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(pocketvl_runtime.__file__)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_runtime_and_one_engine_are_there(thin_venv: ThinVenv, engine: str) -> None:
    python = thin_venv(engine) / "python"
    found = json.loads(call(python, "-c", FIND, *HEAVY, *ENGINES.values(), cwd=Path("/")))
    assert found == [ENGINES[engine]]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_module_imports_there(thin_venv: ThinVenv, engine: str) -> None:
    where = call(thin_venv(engine) / "python", "-c", IMPORT_ALL, cwd=Path("/"))
    assert str(ROOT) not in where


@pytest.mark.parametrize(("engine", "variant"), [("onnx", "onnx-int8"), ("litert", "tflite-fp32")])
def test_match_answers_there(thin_venv: ThinVenv, engine: str, variant: str, whole_bundle: Path) -> None:
    image, texts = whole_bundle / "golden" / "images" / "wide.jpg", ("a red cube", "the blue ball")
    said = call(
        thin_venv(engine) / "pocketvl-run",
        "match",
        whole_bundle,
        *("--image", image),
        *(word for text in texts for word in ("--text", text)),
        "--json",
        cwd=Path("/"),
    )
    got = json.loads(said)
    assert got["variant"] == variant
    assert [row["text"] for row in got["results"]] == list(texts)
    expected = load(whole_bundle, variant).match(image, texts).results
    for row, right in zip(got["results"], expected, strict=True):
        assert row["similarity"] == pytest.approx(right.similarity, abs=1e-5)
    assert call(thin_venv(engine) / "pocketvl-run", "--version", cwd=Path("/")) == f"{__version__}\n"
    assert "all good" in call(thin_venv(engine) / "pocketvl-run", "selftest", whole_bundle, cwd=Path("/"))
    found = call(thin_venv(engine) / "python", "-c", FIND, "torch", cwd=Path("/"))
    assert json.loads(found) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_answers_there(thin_venv: ThinVenv, engine: str) -> None:
    for command in ((), ("match",), ("bench",)):
        assert "Usage: pocketvl-run" in call(
            thin_venv(engine) / "pocketvl-run", *command, "--help", cwd=Path("/")
        )
