"""The engines give right answers or an error, never a wrong answer."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime import backends
from pocketvl_runtime.backends import Backend, litert, onnx, open_backend
from pocketvl_runtime.errors import BackendError, InputError
from pocketvl_runtime.isa import has_exact_int8, instruction_set
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, TensorSpec
from tests.runtime import graphs

IMAGE = TensorSpec("pixels", "uint8", (1, graphs.SIZE, graphs.SIZE, 3))
TEXT = TensorSpec("ids", "int32", (1, graphs.LENGTH))
OUT = TensorSpec("embedding", "float32", (1, graphs.DIM))
NEEDS_TENSORFLOW = pytest.mark.skipif(find_spec("tensorflow") is None, reason="tensorflow is not installed")
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
    component = "image_encoder" if inputs[0] is IMAGE else "text_encoder"
    return GraphSpec(component, engine, precision, f"graphs/g.{engine.value}", inputs, outputs)


def opened(graph: GraphSpec, path: Path, threads: int) -> Backend:
    return open_backend(graph, path.read_bytes(), threads)


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
        backend = opened(spec(engine, (given,)), path, threads)
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
    backend = opened(spec(engine), path, 1)
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
    backend = opened(spec(Engine.ONNX, (x,), (y,), Precision.INT8), path, 1)
    np.testing.assert_allclose(backend.run({"x": ones})["y"], depth, rtol=1e-3)
    if has_exact_int8():
        assert backend.notes == ()
    else:
        assert any("session.x64quantprecision=1" in note for note in backend.notes)
    if instruction_set() == "avx2":  # the graph is one that needs it: left alone, ONNX Runtime is far off
        (wrong,) = raw_session(path).run(None, {"x": ones})
        assert np.abs(wrong - depth).min() > depth / 2


@pytest.mark.parametrize("exact", [False, True])
def test_the_exact_mode_is_on_exactly_where_the_processor_is_not_exact(
    exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    entries: dict[str, str] = {}

    class Spy(onnxruntime.SessionOptions):  # type: ignore[misc]
        def add_session_config_entry(self, key: str, value: str) -> None:
            entries[key] = value
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnx, "has_exact_int8", lambda: exact)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Spy)
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    opened(spec(Engine.ONNX, precision=Precision.INT8), tmp_path / "g.onnx", 1)
    assert entries.get("session.x64quantprecision") == (None if exact else "1")


def test_the_exact_mode_is_not_spoken_of_where_no_integers_are_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "has_exact_int8", lambda: False)
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    able = [each for each in Precision if backends.can_run(spec(Engine.ONNX, precision=each))]
    for precision in able:
        backend = opened(spec(Engine.ONNX, precision=precision), tmp_path / "g.onnx", 1)
        assert bool(backend.notes) == precision.multiplies_integers


def test_telemetry_is_off_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.runtime.test_backends import opened, spec\n"
        "from pocketvl_runtime.manifest import Engine\n"
        "opened(spec(Engine.ONNX), Path(sys.argv[1]), 1)\n"
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
        opened(spec(engine, (given,), (out,)), path, 1)


def test_an_onnx_graph_with_other_names_is_refused(tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    with pytest.raises(BackendError, match="'pixels' .* no such tensor"):
        opened(spec(Engine.ONNX, (replace(IMAGE, name="image"),)), tmp_path / "g.onnx", 1)


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("content", [b"", b"not a graph", b"\0" * 1000])
def test_a_file_that_is_no_graph_is_one_line(engine: Engine, content: bytes) -> None:
    with pytest.raises(BackendError, match=rf"g\.{engine.value}: .* cannot load it") as caught:
        open_backend(spec(engine), content, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", Engine)
def test_inputs_that_do_not_fit_are_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / f"g.{engine.value}"
    WRITERS[engine, "pixels"](path)
    backend = opened(spec(engine), path, 1)
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


@pytest.mark.parametrize("threads", [-1, 0, 257, 2**31, 1.5, "2", True])
@pytest.mark.parametrize("engine", Engine)
def test_numbers_of_threads_that_are_none_are_refused(engine: Engine, threads: Any) -> None:
    with pytest.raises(InputError, match=f"threads must be 1 to 256, not {threads}"):
        open_backend(spec(engine), b"", threads)


@pytest.mark.parametrize(
    ("engine", "package"), [(Engine.ONNX, "onnxruntime"), (Engine.TFLITE, "ai-edge-litert")]
)
def test_a_missing_engine_says_what_to_install(
    engine: Engine, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match=f"not installed: pip install {package}$"):
        open_backend(spec(engine), b"", 1)


@pytest.mark.parametrize("engine", Engine)
def test_an_engine_that_is_not_there_after_all_says_what_to_install(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", *(module for module, _ in litert._INTERPRETERS.values())):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ImportError
    with pytest.raises(BackendError, match="pip install"):
        open_backend(spec(engine), b"", 1)


@pytest.mark.parametrize(
    ("engine", "module", "package"),
    [(Engine.ONNX, "onnxruntime", "onnxruntime"), (Engine.TFLITE, "ai_edge_litert", "ai-edge-litert")],
)
@pytest.mark.parametrize("error", ["AttributeError", "SystemError", "ImportError", "OSError"])
def test_an_engine_that_is_broken_is_named_whatever_its_import_raises(
    engine: Engine, module: str, package: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_IMPORTS", {engine: (module,)})
    fake_package(tmp_path, module, f"raise {error}('_ARRAY_API not found\\nmore')", monkeypatch)
    expected = (
        rf"^{package} cannot be imported \(_ARRAY_API not found\): pip install --force-reinstall {package}$"
    )
    with pytest.raises(BackendError, match=expected):
        open_backend(spec(engine), b"", 1)


def fake_package(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package of this name before the installed one, as if nothing of that had been imported."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    (folder / name / "interpreter.py").write_text(code)
    forget(name, monkeypatch)
    monkeypatch.syspath_prepend(folder)


def forget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)


# --- LiteRT's names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_inputs_go_by_the_signatures_names(swapped: bool, tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", ("ids", "mask"), swapped)
    assert difference(tmp_path / "g.tflite") == [4, 3, 2, 1]


@pytest.mark.parametrize(
    "names", [("x", "y"), ("args_0", "args_1"), ("ids", "keep"), ("ids", "ids2"), ("IDS", "mask")]
)
def test_inputs_of_other_names_are_refused_for_order_tells_nothing(
    names: tuple[str, str], tmp_path: Path
) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", names)
    with pytest.raises(
        BackendError, match=r"g\.tflite: its signature has .*, and the manifest names .*; export"
    ):
        difference(tmp_path / "g.tflite")


def test_a_graph_without_a_signature_is_refused(tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", None)
    with pytest.raises(BackendError, match=r"g\.tflite: one signature is wanted, and it has \[\]; export"):
        difference(tmp_path / "g.tflite")


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("serving_default", None),
        ("decode", r"one signature 'decode' is wanted, and it has \['serving_default'\]"),
    ],
)
def test_a_signature_is_found_by_its_name(signature: str, message: str | None, tmp_path: Path) -> None:
    graphs.tflite_image_graph(tmp_path / "g.tflite")
    graph = replace(spec(Engine.TFLITE), signature=signature)
    if message is None:
        assert opened(graph, tmp_path / "g.tflite", 1).run({"pixels": np.ones(IMAGE.shape, np.uint8)})
        return
    with pytest.raises(BackendError, match=message):
        opened(graph, tmp_path / "g.tflite", 1)


def difference(path: Path) -> list[int]:
    ids, mask = (TensorSpec(name, "int32", (1, 4)) for name in ("ids", "mask"))
    backend = opened(spec(Engine.TFLITE, (ids, mask), (replace(ids, name="embedding"),)), path, 1)
    feed = {"mask": np.asarray([[1, 2, 3, 4]], np.int32), "ids": np.asarray([[5] * 4], np.int32)}
    values: list[int] = backend.run(feed)["embedding"][0].tolist()
    return values


def test_another_number_of_inputs_is_refused(tmp_path: Path) -> None:
    graphs.tflite_difference_graph(tmp_path / "g.tflite", ("ids", "mask"))
    with pytest.raises(
        BackendError, match=r"its signature has \['ids', 'mask'\], and the manifest names \['ids'\]"
    ):
        opened(spec(Engine.TFLITE, (TensorSpec("ids", "int32", (1, 4)),)), tmp_path / "g.tflite", 1)


# --- stand-ins for LiteRT ----------------------------------------------------------------------------


def hide_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ai-edge-litert were not installed: neither found nor importable, be it loaded or not."""
    forget("ai_edge_litert", monkeypatch)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ImportError):
        import ai_edge_litert.interpreter  # noqa: F401


@pytest.fixture
def tflite_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old tflite-runtime, with the real interpreter inside, in place of ai-edge-litert."""
    from ai_edge_litert.interpreter import Interpreter

    module = types.ModuleType("tflite_runtime.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    (tmp_path / "old").mkdir()
    fake_package(tmp_path / "old", "tflite_runtime", "", monkeypatch)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    hide_litert(monkeypatch)


@pytest.mark.usefixtures("tflite_runtime")
def test_an_older_interpreter_is_used_where_there_is_no_other_and_its_cost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert backends.usable_imports(Engine.TFLITE)[0] == "tflite_runtime"
    assert backends.is_stand_in(spec(Engine.TFLITE))
    assert not backends.is_stand_in(spec(Engine.ONNX))
    graphs.tflite_image_graph(tmp_path / "g.tflite")
    backend = opened(spec(Engine.TFLITE), tmp_path / "g.tflite", 1)
    assert "of the int8 and int4 variants none: pip install ai-edge-litert" in backend.notes[0]
    assert backend.name.startswith("tflite-runtime")
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE.shape, dtype=np.uint8)
    got = backend.run({"pixels": pixels})["embedding"][0]
    np.testing.assert_allclose(got, graphs.image_embedding(pixels), atol=2e-6)


@NEEDS_TENSORFLOW
@pytest.mark.usefixtures("tflite_runtime")
def test_the_older_interpreter_is_not_tried_with_numpy_2_but_the_next_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(np, "__version__", "2.0.0")
    assert backends.usable_imports(Engine.TFLITE) == ["tensorflow"]
    monkeypatch.setattr(litert, "import_module", lambda name: types.SimpleNamespace(Interpreter=name))
    interpreter, name, notes = litert._find_interpreter(spec(Engine.TFLITE, precision=Precision.FP32))
    assert str(interpreter) == "tensorflow.lite.python.interpreter"
    assert name.startswith("tensorflow")
    assert "pip install ai-edge-litert" in notes[0]


@pytest.mark.usefixtures("tflite_runtime")
def test_the_older_interpreter_alone_with_numpy_2_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(np, "__version__", "2.4.6")
    forget("tensorflow", monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    expected = "tflite-runtime is, but does not start with numpy 2: pip install ai-edge-litert$"
    with pytest.raises(BackendError, match=expected):
        open_backend(spec(Engine.TFLITE), b"", 1)


@NEEDS_TENSORFLOW
@pytest.mark.slow
def test_tensorflows_own_interpreter_gives_the_same_answer(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tests.runtime import graphs\n"
        "from tests.runtime.test_backends import IMAGE, opened, spec\n"
        "from pocketvl_runtime.manifest import Engine\n"
        "for name in [n for n in sys.modules if n.split('.')[0] == 'ai_edge_litert']:\n"
        "    del sys.modules[name]\n"
        "sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None\n"
        "backend = opened(spec(Engine.TFLITE), Path(sys.argv[1]), 1)\n"
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
