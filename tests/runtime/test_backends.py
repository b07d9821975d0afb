"""The engines give right answers or an error, never a wrong answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import backends
from pocketvl_runtime.backends import litert, open_backend
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.isa import has_exact_int8, instruction_set
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, Role, TensorSpec
from tests.runtime import graphs

IMAGE = TensorSpec("pixels", "uint8", (1, graphs.SIZE, graphs.SIZE, 3))
TEXT = TensorSpec("ids", "int32", (1, graphs.LENGTH))
OUT = TensorSpec("embedding", "float32", (1, graphs.DIM))
WRITERS: dict[tuple[Engine, str], Callable[[Path], None]] = {
    (Engine.ONNX, "pixels"): graphs.onnx_image_graph,
    (Engine.ONNX, "ids"): graphs.onnx_text_graph,
    (Engine.TFLITE, "pixels"): graphs.tflite_image_graph,
    (Engine.TFLITE, "ids"): graphs.tflite_text_graph,
}


def spec(
    engine: Engine,
    inputs: tuple[TensorSpec, ...] = (IMAGE,),
    outputs: tuple[TensorSpec, ...] = (OUT,),
    precision: Precision = Precision.FP32,
) -> GraphSpec:
    role = Role.IMAGE_ENCODER if inputs[0] is IMAGE else Role.TEXT_ENCODER
    return GraphSpec(role, engine, precision, f"graphs/g.{engine.value}", inputs, outputs)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", Engine)
def test_both_engines_compute_the_graph(engine: Engine, threads: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE.shape, dtype=np.uint8)
    ids = np.asarray([[1, 4, 7, 9, 2] + [0] * 7], np.int32)
    for given, value, expected in (
        (IMAGE, pixels, graphs.image_embedding(pixels)),
        (TEXT, ids, graphs.text_embedding(ids[0])),
    ):
        path = tmp_path / f"{given.name}.{engine.value}"
        WRITERS[engine, given.name](path)
        backend = open_backend(spec(engine, (given,)), path, threads)
        got = backend.run({given.name: value})
        assert list(got) == ["embedding"]
        assert got["embedding"].shape == (1, graphs.DIM)
        np.testing.assert_allclose(got["embedding"][0], expected, atol=2e-6)
        assert backend.notes == ()
    assert {Engine.ONNX: "onnxruntime ", Engine.TFLITE: "ai-edge-litert "}[engine] in backend.name


@pytest.mark.parametrize("engine", Engine)
def test_answers_do_not_change_when_later_ones_are_computed(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / f"g.{engine.value}"
    WRITERS[engine, "pixels"](path)
    backend = open_backend(spec(engine), path, 1)
    first = backend.run({"pixels": np.full(IMAGE.shape, 9, np.uint8)})["embedding"]
    kept = first.copy()
    backend.run({"pixels": np.random.default_rng(1).integers(0, 256, IMAGE.shape, dtype=np.uint8)})
    np.testing.assert_array_equal(first, kept)


# --- int8 on x86 -------------------------------------------------------------------------------------


def raw_session(path: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_saturating_int8_kernels_never_answer(tmp_path: Path) -> None:
    path, depth = tmp_path / "saturating.onnx", 64
    graphs.onnx_saturating_graph(path, depth)
    x, y = TensorSpec("x", "float32", (1, depth)), TensorSpec("y", "float32", (1, graphs.DIM))
    ones = np.ones(x.shape, np.float32)
    backend = open_backend(spec(Engine.ONNX, (x,), (y,), Precision.INT8), path, 1)
    np.testing.assert_allclose(backend.run({"x": ones})["y"], depth, rtol=1e-3)
    if has_exact_int8():
        assert backend.notes == ()
    else:
        assert any("session.x64quantprecision=1" in note for note in backend.notes)
    if instruction_set() == "avx2":  # the graph is one that needs it: left alone, ONNX Runtime is far off
        (wrong,) = raw_session(path).run(None, {"x": ones})
        assert np.abs(wrong - depth).min() > depth / 2


def test_the_exact_mode_is_not_spoken_of_where_no_integers_are_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketvl_runtime.backends import onnx as backend

    monkeypatch.setattr(backend, "has_exact_int8", lambda: False)
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    for precision in Precision:
        opened = open_backend(spec(Engine.ONNX, precision=precision), tmp_path / "g.onnx", 1)
        assert bool(opened.notes) == precision.multiplies_integers


def test_telemetry_is_off_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.runtime.test_backends import spec\n"
        "from pocketvl_runtime.backends import open_backend\n"
        "from pocketvl_runtime.manifest import Engine\n"
        "open_backend(spec(Engine.ONNX), Path(sys.argv[1]), 1)\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "g.onnx")],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
    assert not list(home.rglob("*icrosoft*"))


# --- what must not pass ------------------------------------------------------------------------------


def test_answers_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx", scale=float("inf"))
    backend = open_backend(spec(Engine.ONNX), tmp_path / "g.onnx", 1)
    with pytest.raises(BackendError, match=r"g\.onnx gave NaN or infinity in embedding"):
        backend.run({"pixels": np.ones(IMAGE.shape, np.uint8)})


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize(
    ("given", "out", "message"),
    [
        (
            replace(IMAGE, shape=(1, 8, 8, 3)),
            OUT,
            r"'pixels' is uint8 \[1, 16, 16, 3\], but .* \[1, 8, 8, 3\]",
        ),
        (replace(IMAGE, dtype="float32"), OUT, "'pixels' is uint8 .* but the manifest says float32"),
        (IMAGE, replace(OUT, shape=(1, 9)), r"'embedding' is float32 \[1, 8\], but .* \[1, 9\]"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(
    engine: Engine, given: TensorSpec, out: TensorSpec, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"g.{engine.value}"
    WRITERS[engine, "pixels"](path)
    with pytest.raises(BackendError, match=message):
        open_backend(spec(engine, (given,), (out,)), path, 1)


def test_an_onnx_graph_with_other_names_is_refused(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    with pytest.raises(BackendError, match="'pixels' .* no such tensor"):
        open_backend(spec(Engine.ONNX, (replace(IMAGE, name="image"),)), tmp_path / "g.onnx", 1)


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("content", [b"", b"not a graph", b"\0" * 1000, None])
def test_a_file_that_is_no_graph_is_one_line(engine: Engine, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"g.{engine.value}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError, match=rf"g\.{engine.value}: .* cannot load it") as caught:
        open_backend(spec(engine), path, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", Engine)
def test_inputs_that_do_not_fit_are_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / f"g.{engine.value}"
    WRITERS[engine, "pixels"](path)
    backend = open_backend(spec(engine), path, 1)
    right = np.zeros(IMAGE.shape, np.uint8)
    feeds: list[tuple[dict[str, Any], str]] = [
        ({}, r"takes \['pixels'\], not \[\]"),
        ({"pixels": right, "mask": right}, "takes"),
        ({"pixels": right[:, :8]}, r"pixels is uint8 \[1, 8, 16, 3\], and uint8 \[1, 16, 16, 3\] is wanted"),
        ({"pixels": right.astype(np.float32)}, "pixels is float32"),
    ]
    for feed, message in feeds:
        with pytest.raises(BackendError, match=message):
            backend.run(feed)


def test_no_threads_are_refused(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    with pytest.raises(BackendError, match="threads must be at least 1"):
        open_backend(spec(Engine.ONNX), tmp_path / "g.onnx", 0)


@pytest.mark.parametrize(
    ("engine", "package"), [(Engine.ONNX, "onnxruntime"), (Engine.TFLITE, "ai-edge-litert")]
)
def test_a_missing_engine_says_what_to_install(
    engine: Engine, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match=f"not installed: pip install {package}$"):
        open_backend(spec(engine), tmp_path / "g", 1)


@pytest.mark.parametrize("engine", Engine)
def test_an_engine_that_is_broken_says_what_to_install(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", *(module for module, _, _ in litert._INTERPRETERS)):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ImportError
    with pytest.raises(BackendError, match="pip install"):
        open_backend(spec(engine), tmp_path / "g", 1)


# --- LiteRT's names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_inputs_go_by_the_signatures_names(swapped: bool, tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", ("ids", "mask"), swapped)
    assert difference(tmp_path / "g.tflite") == [4, 3, 2, 1]


@pytest.mark.parametrize("names", [("args_0", "args_1"), None])
def test_inputs_go_by_position_where_names_are_mangled(names: tuple[str, str] | None, tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", names)
    assert difference(tmp_path / "g.tflite") == [4, 3, 2, 1]


def difference(path: Path) -> list[int]:
    ids, mask = (TensorSpec(name, "int32", (1, 4)) for name in ("ids", "mask"))
    backend = open_backend(spec(Engine.TFLITE, (ids, mask), (replace(ids, name="embedding"),)), path, 1)
    feed = {"mask": np.asarray([[1, 2, 3, 4]], np.int32), "ids": np.asarray([[5] * 4], np.int32)}
    values: list[int] = backend.run(feed)["embedding"][0].tolist()
    return values


def test_another_number_of_inputs_is_refused(tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", ("ids", "mask"))
    with pytest.raises(BackendError, match=r"g\.tflite has 2 tensors where the manifest names \['ids'\]"):
        open_backend(spec(Engine.TFLITE, (TensorSpec("ids", "int32", (1, 4)),)), tmp_path / "g.tflite", 1)


def test_an_older_interpreter_is_used_where_there_is_no_other_and_its_cost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert import interpreter

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    graphs.tflite_image_graph(tmp_path / "g.tflite")
    backend = open_backend(spec(Engine.TFLITE), tmp_path / "g.tflite", 1)
    assert "8 to 40 times slower" in backend.notes[0]
    assert backend.name.startswith("tflite-runtime")
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE.shape, dtype=np.uint8)
    got = backend.run({"pixels": pixels})["embedding"][0]
    np.testing.assert_allclose(got, graphs.image_embedding(pixels), atol=2e-6)


@pytest.mark.slow
def test_tensorflows_own_interpreter_gives_the_same_answer(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ai_edge_litert.interpreter'] = None\n"
        "sys.modules['tflite_runtime'] = None\n"
        "from pathlib import Path; import numpy as np\n"
        "from tests.runtime import graphs\n"
        "from tests.runtime.test_backends import IMAGE, spec\n"
        "from pocketvl_runtime.backends import open_backend\n"
        "from pocketvl_runtime.manifest import Engine\n"
        "backend = open_backend(spec(Engine.TFLITE), Path(sys.argv[1]), 1)\n"
        "pixels = np.random.default_rng(0).integers(0, 256, IMAGE.shape, dtype=np.uint8)\n"
        "got = backend.run({'pixels': pixels})['embedding'][0]\n"
        "np.testing.assert_allclose(got, graphs.image_embedding(pixels), atol=2e-6)\n"
        "print(backend.name, backend.notes)\n"
    )
    graphs.tflite_image_graph(tmp_path / "g.tflite")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "g.tflite")], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tensorflow" in done.stdout
    assert "pip install ai-edge-litert" in done.stdout
