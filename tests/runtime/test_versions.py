"""An engine whose version gives wrong answers at a precision is refused, and not chosen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import backends, load
from pocketvl_runtime.backends import open_backend, versions
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import Engine, Precision
from pocketvl_runtime.variant_choice import default_variant, runnable_variants
from tests.runtime import graphs
from tests.runtime.bundles import edit_manifest
from tests.runtime.test_backends import opened, spec
from tests.runtime.test_cli import answer, run

LITERT, NEW = "ai_edge_litert", "ai-edge-litert"
NARROW = (Precision.INT4, Precision.INT2, Precision.MIXED)


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a distribution look like another version of itself: its metadata is found before the real one."""

    def make(distribution: str, other: str) -> None:
        folder = tmp_path / other / f"{distribution.replace('-', '_')}-{other}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {other}\n")
        monkeypatch.syspath_prepend(folder.parent)
        assert version(distribution) == other

    return make


def only_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_IMPORTS", {**backends._IMPORTS, Engine.TFLITE: (LITERT,)})


def test_the_installed_litert_is_called_right_exactly_where_it_is(tmp_path: Path) -> None:
    """Its own answer, in a process of its own: an engine that is too old may crash."""
    graphs.tflite_blocks_graph(tmp_path / "g.tflite")
    x = np.random.default_rng(1).normal(size=(1, 2 * graphs.BLOCK)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np; from ai_edge_litert.interpreter import Interpreter\n"
        "engine = Interpreter(model_path=sys.argv[1]); engine.allocate_tensors()\n"
        "engine.set_tensor(engine.get_input_details()[0]['index'], np.load(sys.argv[2])); engine.invoke()\n"
        "np.save(sys.argv[3], engine.get_tensor(engine.get_output_details()[0]['index']))\n"
    )
    names = [tmp_path / name for name in ("g.tflite", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True)
    right = done.returncode == 0 and np.allclose(np.load(names[2]), graphs.blocks_product(x), atol=0.3)
    assert versions.is_right(LITERT, Precision.INT4) == right


@pytest.mark.parametrize("old", ["2.0.2", "2.0.3", "1.4.0"])
def test_an_engine_too_old_for_a_precision_is_refused_with_advice(
    old: str, pretend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_litert(monkeypatch)
    pretend(NEW, old)
    graphs.tflite_image_graph(tmp_path / "g.tflite")
    for precision in Precision:
        graph = spec(Engine.TFLITE, precision=precision)
        assert backends.can_run(graph) == (precision not in NARROW)
        if precision in NARROW:
            expected = (
                f"^g.tflite needs an engine that is right in {precision.value}, and ai-edge-litert {old} is "
                "not: pip install 'ai-edge-litert>=2.1'$"
            )
            with pytest.raises(BackendError, match=expected):
                open_backend(graph, b"", 1)
        else:
            assert opened(graph, tmp_path / "g.tflite", 1).name == f"ai-edge-litert {old}"


@pytest.mark.parametrize("new", ["2.1.0", "2.1.0rc1", "2.10", "3.0.0.dev20270101+local"])
def test_a_newer_engine_runs_everything(new: str, pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    only_litert(monkeypatch)
    pretend(NEW, new)
    assert all(backends.can_run(spec(Engine.TFLITE, precision=precision)) for precision in Precision)


def test_an_engine_of_unknown_version_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_DISTRIBUTIONS", {LITERT: ("no-such-distribution",)})
    monkeypatch.setattr(versions, "packages_distributions", dict)
    assert versions.is_right(LITERT, Precision.INT4)
    assert versions.described(LITERT) == "no-such-distribution of unknown version"


def test_a_distribution_of_another_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_DISTRIBUTIONS", {"numpy": ("no-such-distribution",)})
    assert versions.distribution("numpy") == ("numpy", np.__version__)


@pytest.mark.parametrize(
    ("distribution", "installed", "module", "right"),
    [
        ("tflite-runtime", "2.14.0", "tflite_runtime", {Precision.FP32, Precision.FP16}),
        ("tensorflow", "2.18.1", "tensorflow", set()),
        ("tensorflow", "2.20.0", "tensorflow", set(Precision) - set(NARROW)),
        ("tensorflow", "2.21.0", "tensorflow", set(Precision)),
        ("onnxruntime", "1.23.2", "onnxruntime", set(Precision) - {Precision.INT2}),
        ("onnxruntime", "1.24.1", "onnxruntime", set(Precision)),
    ],
)
def test_stand_ins_run_what_they_compute_rightly(
    distribution: str, installed: str, module: str, right: set[Precision], pretend: Any
) -> None:
    pretend(distribution, installed)
    assert {precision for precision in Precision if versions.is_right(module, precision)} == right


def test_where_the_engine_is_too_old_a_stand_in_that_is_not_is_taken(
    pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (LITERT, "tensorflow")
    monkeypatch.setattr(backends, "find_spec", lambda name: name if name in found else None)
    pretend(NEW, "2.0.3")
    pretend("tensorflow", "2.21.0")
    assert backends.usable_imports(Engine.TFLITE, Precision.INT8) == [LITERT, "tensorflow"]
    assert backends.usable_imports(Engine.TFLITE, Precision.INT4) == ["tensorflow"]
    assert backends.is_stand_in(spec(Engine.TFLITE, precision=Precision.INT4))
    assert not backends.is_stand_in(spec(Engine.TFLITE, precision=Precision.INT8))


def narrow(root: Path) -> None:
    """Calls the TFLite variant one of 4 bits."""

    def edit(manifest: Any) -> None:
        variant = manifest["variants"].pop("tflite-fp32")
        manifest["variants"]["tflite-int4"] = variant | {"precision": "int4"}
        for name in ("onnx-fp32", "onnx-int8"):
            manifest["variants"][name]["status"] = "experimental"

    edit_manifest(root, edit)


def test_a_variant_that_the_engine_is_too_old_for_is_not_chosen(
    bundle: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(bundle)
    only_litert(monkeypatch)
    pretend(NEW, "2.1.0")
    assert default_variant(Bundle.open(bundle)) == "tflite-int4"
    pretend(NEW, "2.0.2")
    assert runnable_variants(Bundle.open(bundle)) == ["onnx-fp32", "onnx-int8"]
    with pytest.raises(BackendError, match=r"pip install 'ai-edge-litert>=2\.1', or name one of onnx-fp32"):
        load(bundle)
    named = (
        "^variant tflite-int4 needs an engine that is right in int4, and ai-edge-litert 2.0.2 is not: "
        r"pip install 'ai-edge-litert>=2\.1' \(with what is installed, these run: onnx-fp32, onnx-int8\)$"
    )
    with pytest.raises(BackendError, match=named):
        load(bundle, "tflite-int4")


def test_the_oldest_engine_that_a_bundle_asks_for_counts_too(
    bundle: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_manifest(bundle, lambda m: m["variants"]["tflite-fp32"].update(min_engine="2.2"))
    only_litert(monkeypatch)
    pretend(NEW, "2.1.9")
    assert "tflite-fp32" not in runnable_variants(Bundle.open(bundle))
    with pytest.raises(BackendError, match=r"pip install 'ai-edge-litert>=2\.2' \(with what is installed"):
        load(bundle, "tflite-fp32")
    pretend(NEW, "2.2.0")
    assert "tflite-fp32" in runnable_variants(Bundle.open(bundle))


@pytest.mark.parametrize(
    ("module", "installed", "counts_as"),
    [
        (LITERT, "1.4.0", "1.4.0"),
        (LITERT, "2.3.0", "2.3.0"),
        ("onnxruntime", "1.23.2", "1.23.2"),
        ("tflite_runtime", "2.14.0", "0.14.0"),
        ("tensorflow", "1.15.5", "0"),
        ("tensorflow", "2.9.3", "0.9.3"),
        ("tensorflow", "2.16.1", "0.16.1"),
        ("tensorflow", "2.20.0", "0.20.0"),
        ("tensorflow", "2.21.0rc0", "2.1"),
        ("tensorflow", "2.22.0", "2.1"),
        ("tensorflow", "3.0", "2.1"),
    ],
)
def test_every_engine_of_tflite_graphs_counts_on_one_scale(
    module: str, installed: str, counts_as: str
) -> None:
    assert versions.engine_release(module, installed) == versions.release(counts_as)


@pytest.mark.parametrize(
    ("module", "distribution", "installed", "accepted", "refused"),
    [
        (LITERT, NEW, "1.0.1", ("0.3", "0.16", "0.20", "1.0"), ("1.1", "2.1")),
        (LITERT, NEW, "2.1.0", ("0.16", "2.1", "2.1.0"), ("2.1.1", "2.2")),
        (
            "tflite_runtime",
            "tflite-runtime",
            "2.14.0",
            ("0.0", "0.9", "0.14"),
            ("0.15", "0.16", "1.0", "2.1"),
        ),
        ("tensorflow", "tensorflow", "2.16.1", ("0.9", "0.16"), ("0.17", "1.0", "2.1")),
        ("tensorflow", "tensorflow", "2.20.0", ("0.16",), ("1.0", "2.1")),
        ("tensorflow", "tensorflow", "2.21.0", ("0.16", "2.0.3", "2.1"), ("2.2", "2.3")),
        ("onnxruntime", "onnxruntime", "1.23.2", ("1.20", "1.22"), ("1.24",)),
    ],
)
def test_a_version_satisfies_what_is_not_newer(
    module: str,
    distribution: str,
    installed: str,
    accepted: tuple[str, ...],
    refused: tuple[str, ...],
    pretend: Any,
) -> None:
    pretend(distribution, installed)
    assert [each for each in (*accepted, *refused) if versions.satisfies(module, each)] == list(accepted)


def test_stand_ins_are_held_to_what_a_bundle_asks_for(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ("tflite_runtime", "tensorflow")
    monkeypatch.setattr(backends, "find_spec", lambda name: name if name in found else None)
    monkeypatch.setattr(backends, "_cannot_start", lambda name: False)
    pretend("tflite-runtime", "2.14.0")
    pretend("tensorflow", "2.20.0")
    for least, usable in (
        (None, ["tflite_runtime", "tensorflow"]),
        ("0.14", ["tflite_runtime", "tensorflow"]),
        ("0.16", ["tensorflow"]),
        ("2.1", []),
    ):
        assert backends.usable_imports(Engine.TFLITE, Precision.FP32, least) == usable
        assert backends.can_run(replace(spec(Engine.TFLITE), min_engine=least)) == bool(usable)


@pytest.mark.parametrize(
    ("precision", "least", "advice"),
    [
        (Precision.FP32, None, "ai-edge-litert"),
        (Precision.INT8, "0.16", "ai-edge-litert"),  # any LiteRT is newer than TensorFlow Lite 2.16
        (Precision.INT4, "0.16", "'ai-edge-litert>=2.1'"),
        (Precision.FP32, "2.3.0", "'ai-edge-litert>=2.3.0'"),
    ],
)
def test_nobody_is_told_to_install_a_predecessors_version(
    precision: Precision, least: str | None, advice: str
) -> None:
    graph = replace(spec(Engine.TFLITE, precision=precision), min_engine=least)
    assert backends.install_advice(graph) == advice


def test_the_command_says_that_a_variant_cannot_run_here(
    bundle: Path, pretend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(bundle)
    (tmp_path / "sitecustomize.py").write_text(
        "from pocketvl_runtime import backends\n"
        "from pocketvl_runtime.manifest import Engine\n"
        "backends._IMPORTS[Engine.TFLITE] = ('ai_edge_litert',)\n"
    )
    pretend(NEW, "2.0.3")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{tmp_path / '2.0.3'}:{Path(backends.__file__).parents[2]}")
    rows = answer("info", bundle, "--json")["variants"]
    assert {name: row["runs_here"] for name, row in rows.items()} == {
        "onnx-fp32": True,
        "onnx-int8": True,
        "tflite-int4": False,
    }
    assert re.search(r"tflite-int4 .*\(its engine is not installed, or too old\)", run("info", bundle).stdout)
    report = json.loads(run("selftest", bundle, "--json").stdout)
    assert report["variants"] == ["onnx-fp32", "onnx-int8"]
