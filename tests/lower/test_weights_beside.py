"""Graphs whose weights exceed what one file holds keep them in a second one; nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pocketvl import api
from pocketvl.lower.base import graph_files, weights_path
from pocketvl.lower.onnx import export, files
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.fp16 import cast_fp16_onnx
from pocketvl.lower.onnx.graph import dataflow_onnx, graph_io_onnx, least_engine_onnx, op_counts_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime import load
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.bench import bench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError
from pocketvl_runtime.selftest import selftest
from tests.families.tiny import make_tiny_clip
from tests.lower.engines import run_onnx
from tests.lower.lowered import COMPONENTS, lowered, samples
from tests.runtime.bundles import edit_manifest, reseal

LIMIT = 20_000  # bytes: the tiny model's float weights exceed it, and one of its LayerNorms does not


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered()  # whole files, to compare with
    for module in (files, export):
        monkeypatch.setattr(module, "MOST_INSIDE", LIMIT)


def values(path: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("component", COMPONENTS)
def test_the_graph_is_the_same_but_for_where_its_weights_lie(component: str, tmp_path: Path) -> None:
    whole, path = lowered().path(component, "fp32.onnx"), tmp_path / "g.onnx"
    example = torch.from_numpy(samples(component, 1, 0)[0][component])
    for _ in range(2):  # the second time over the first
        export_onnx(lowered().module(component), {component: example}, path)
        contents = [file.read_bytes() for file in graph_files(path)]
        assert len(contents) == 2
        assert len(contents[0]) < LIMIT < len(contents[1])
    (tmp_path / "again").mkdir()
    export_onnx(lowered().module(component), {component: example}, tmp_path / "again" / "g.onnx")
    assert [file.read_bytes() for file in graph_files(tmp_path / "again" / "g.onnx")] == contents
    assert op_counts_onnx(path) == op_counts_onnx(whole)
    assert graph_io_onnx(path) == graph_io_onnx(whole)
    assert dataflow_onnx(path).types.keys() == dataflow_onnx(whole).types.keys()
    expected, found = values(whole), values(path)
    assert expected.keys() == found.keys()
    for name, each in expected.items():
        np.testing.assert_array_equal(found[name], each)
    feeds = samples(component, 4, 2)
    np.testing.assert_array_equal(run_onnx(path, feeds), run_onnx(whole, feeds))
    least = least_engine_onnx(path)
    assert least is not None
    assert least.version == "1.24"
    assert least_engine_onnx(whole) is None


@pytest.mark.usefixtures("small_files")
def test_what_is_made_of_it_is_what_is_made_of_one_file(tmp_path: Path) -> None:
    path, whole = tmp_path / "g.onnx", lowered().path("ids", "fp32.onnx")
    example = torch.from_numpy(samples("ids", 1, 0)[0]["ids"])
    export_onnx(lowered().module("ids"), {"ids": example}, path)
    write_quantized_onnx(path, lowered().integers("ids"), tmp_path / "int8.onnx")
    cast_fp16_onnx(path, tmp_path / "fp16.onnx")
    for kind in ("int8", "fp16"):
        expected, found = values(lowered().path("ids", f"{kind}.onnx")), values(tmp_path / f"{kind}.onnx")
        assert expected.keys() == found.keys()
        for name, each in expected.items():
            np.testing.assert_array_equal(found[name], each)
    assert len(whole.read_bytes()) > LIMIT


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    source = make_tiny_clip(folder / "clip")
    (folder / "data").mkdir()
    write_tabletop(folder / "data", 3, 40, size=40)
    with pytest.MonkeyPatch.context() as patched:
        for module in (files, export):
            patched.setattr(module, "MOST_INSIDE", LIMIT)
        api.export(
            source,
            folder / "bundle",
            calibration=folder / "data",
            variants=("onnx-fp32", "onnx-int8"),
            cache=folder / "cache",
        )
    return folder / "bundle"


def test_a_bundle_lists_them_and_runs(exported: Path) -> None:
    bundle = Bundle.open(exported)
    stored = bundle.variant("onnx-fp32").files["image_encoder"]
    assert stored.weights == "graphs/image_encoder.fp32.onnx.weights"
    assert stored.weights in bundle.manifest.files
    assert bundle.size_bytes("onnx-fp32") == sum(
        file.stat().st_size for file in (exported / "graphs").glob("*.fp32.onnx*")
    )
    assert bundle.variant("onnx-fp32").min_engine == "1.24"
    assert selftest(bundle, ["onnx-fp32"]).passed
    found = bench(bundle, ["onnx-fp32"], threads=[1], runs=2, ops=True)
    assert found.variants["onnx-fp32"].graphs[0].ops


def test_weights_that_are_not_as_listed_are_refused(exported: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))
    beside = weights_path(bundle / "graphs" / "image_encoder.fp32.onnx")
    content = beside.read_bytes()
    beside.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(BundleError, match=r"weights is damaged: its sha256"):
        load(bundle, "onnx-fp32")
    beside.write_bytes(content[: len(content) // 2])
    reseal(bundle)
    with pytest.raises(BackendError, match=r"image_encoder\.fp32\.onnx: ONNX Runtime cannot load it"):
        load(bundle, "onnx-fp32")
    beside.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        load(bundle, "onnx-fp32")


def test_a_graph_whose_weights_the_manifest_does_not_list_is_refused(exported: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))

    def unlist(manifest: dict) -> None:  # type: ignore[type-arg]
        del manifest["variants"]["onnx-fp32"]["files"]["image_encoder"]["weights"]

    edit_manifest(bundle, unlist)
    with pytest.raises(BackendError, match="which the manifest does not list"):
        load(bundle, "onnx-fp32")


def test_no_other_file_is_opened(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph names a file in the working directory; handed other weights, it does not load."""
    bundle = Bundle.open(exported)
    graph = bundle.manifest.graph("onnx-fp32", "image_encoder")
    model = onnx.load(exported / graph.file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "secret.bin"
    weights = bundle.read_weights(graph)
    assert weights is not None
    (tmp_path / "secret.bin").write_bytes(weights)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="cannot load it"):
        open_backend(graph, model.SerializeToString(), 1, weights)
