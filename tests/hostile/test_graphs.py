"""Graphs that somebody made to do harm: one line of a documented error, and no other file is read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from pocketvl_runtime import load
from pocketvl_runtime.backends import engine_errors, first_line, open_backend
from pocketvl_runtime.errors import BackendError, BundleError, PocketVLError
from pocketvl_runtime.manifest import MAX_GRAPH_BYTES, Engine, GraphSpec, Precision, TensorSpec
from tests.runtime import graphs
from tests.runtime.bundles import edit_manifest, reseal
from tests.runtime.test_backends import IMAGE, OUT, TEXT, spec

ROOT = Path(__file__).parents[2]

# --- weights elsewhere -------------------------------------------------------------------------------


def number(value: int, longer: int = 0) -> bytes:
    """A number below 128 as protobuf writes it, or in one of the longer ways that it reads too."""
    return bytes([value]) if not longer else bytes([value | 0x80, *[0x80] * (longer - 1), 0])


def field(tag: int, content: bytes, longer: int = 0) -> bytes:
    """A field of bytes; more than 127 of them are written as protobuf does."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return number(tag << 3 | 2, longer) + length + number(size, longer) + content


def onnx_reading(file: str, longer: int) -> bytes:
    """x float32 [1, 64] plus weights that lie in another file -> y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1, 64], data_location=TensorProto.EXTERNAL
    )
    entry = field(1, b"location", longer) + field(2, file.encode())
    inside = graph.SerializeToString() + field(5, tensor.SerializeToString() + field(13, entry))
    model.ClearField("graph")
    content: bytes = model.SerializeToString() + field(7, inside)
    (read,) = onnx.load_from_string(content).graph.initializer
    assert [(e.key, e.value) for e in read.external_data] == [("location", file)]
    return content


@pytest.mark.parametrize("longer", [0, 1, 2, 4])
@pytest.mark.parametrize("absolute", [False, True])
def test_weights_in_another_file_are_refused_however_that_is_written(
    absolute: bool, longer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.arange(64, dtype=np.float32).tofile(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    x, y = (TensorSpec(name, "float32", (1, 64)) for name in ("x", "y"))
    graph = GraphSpec("image_encoder", Engine.ONNX, Precision.FP32, "graphs/g.onnx", (x,), (y,))
    content = onnx_reading(str(tmp_path / "secret.bin") if absolute else "secret.bin", longer)
    with pytest.raises(BackendError, match=r"g\.onnx: some of its weights lie in another file"):
        open_backend(graph, content, 1)


@pytest.mark.parametrize("name", ["location", "a.location", "\x07location", "location" * 40])
def test_a_name_that_holds_the_word_is_no_reason_to_refuse(name: str, tmp_path: Path) -> None:
    graphs.onnx_image_graph(tmp_path / "g.onnx")
    model = onnx.load(tmp_path / "g.onnx")
    model.graph.node[0].name = name
    model.doc_string = name
    assert open_backend(spec(Engine.ONNX), model.SerializeToString(), 1).name.startswith("onnxruntime")


# --- damaged graphs behind a right checksum ----------------------------------------------------------


def resigned(bundle: Path, edit: Callable[[Any], None]) -> None:
    """Changes the TFLite image graph, and its checksum with it."""
    import flatbuffers

    path = bundle / "graphs" / "image_encoder.fp32.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    reseal(bundle)


def foreign_input(model: Any) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 77


def foreign_output(model: Any) -> None:
    model.signatureDefs[0].outputs[0].tensorIndex = 1


def no_text(model: Any) -> None:
    model.signatureDefs[0].inputs[0].name = b"\xff\xfe"


def no_text_in_the_graph(model: Any) -> None:
    model.subgraphs[0].tensors[0].name = b"\xff\xfe"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (foreign_input, "its signature names tensor 77, which it neither takes nor gives; export"),
        (foreign_output, "its signature names tensor 1, which it neither takes nor gives; export"),
        (no_text, "cannot load it"),
        (no_text_in_the_graph, "cannot load it"),
    ],
)
def test_a_signature_that_makes_no_sense_is_a_documented_error(
    bundle: Path, edit: Callable[[Any], None], message: str
) -> None:
    resigned(bundle, edit)
    with pytest.raises(BackendError, match=f"image_encoder.fp32.tflite: .*{message}") as caught:
        load(bundle, "tflite-fp32")
    assert len(str(caught.value).splitlines()) == 1


FUZZ = """
import json, os, random, resource, sys
from pathlib import Path
import numpy as np
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.errors import PocketVLError
from tests.hostile.test_graphs import spec_of, spoiled
path, seeds = Path(sys.argv[1]), range(*map(int, sys.argv[2:]))
graph, content = spec_of(path.name), path.read_bytes()
for seed in seeds:
    child = os.fork()
    if not child:
        try:
            backend = open_backend(graph, spoiled(content, seed), 1)
            backend.run({s.name: np.zeros(s.shape, s.dtype) for s in graph.inputs})
        except PocketVLError as error:
            os._exit(0 if len(str(error).splitlines()) == 1 else 3)
        except BaseException as error:
            os.write(2, f"{path.name}, seed {seed}: {error!r}\\n".encode("utf-8", "backslashreplace"))
            os._exit(2)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    # An engine that crashes on a hostile graph takes its process with it: docs/SECURITY.md.
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        os.write(1, f"{seed} ".encode())
"""


def spec_of(name: str) -> GraphSpec:
    given, engine = name.split(".")
    return spec(Engine(engine), (IMAGE if given == "pixels" else TEXT,), (OUT,))


def spoiled(content: bytes, seed: int) -> bytes:
    """A few bytes of it are others; weights are left alone where they are most of it."""
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(draw.choice((1, 2, 2, 3, 8))):
        at = draw.randrange(min(len(changed), 1500))
        changed[at if draw.random() < 0.5 else -1 - at] = draw.randrange(256)
    return bytes(changed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each graph needs a process of its own")
@pytest.mark.parametrize("name", ["pixels.onnx", "ids.onnx", "pixels.tflite", "ids.tflite"])
def test_spoiled_graphs_raise_what_is_documented_or_nothing(name: str, tmp_path: Path) -> None:
    from tests.runtime.test_backends import WRITERS

    given, engine = name.split(".")
    WRITERS[Engine(engine), given](tmp_path / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / name), "0", "40"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", done.stderr  # nothing escaped, and no engine printed


# --- messages ----------------------------------------------------------------------------------------


class UnspeakableError(RuntimeError):
    def __str__(self) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a" * 300), "a" * 300),
        (ValueError("a" * 301), "a" * 297 + "..."),
        (ValueError("  \n first\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (ValueError(" \n\t"), "ValueError"),
        (UnspeakableError(), "UnspeakableError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_an_engine_says_is_one_short_line(error: Exception, line: str) -> None:
    assert first_line(error) == line
    with pytest.raises(BackendError) as caught, engine_errors("g.onnx failed"):
        raise error
    assert str(caught.value) == f"g.onnx failed ({line})"


def test_our_own_errors_and_interrupts_pass_unchanged() -> None:
    own = BundleError("as it was")
    for raised in (own, KeyboardInterrupt()):
        with pytest.raises(type(raised)) as caught, engine_errors("g.onnx failed"):
            raise raised
        assert caught.value is raised


# --- size --------------------------------------------------------------------------------------------


def test_a_graph_that_is_too_large_is_not_read(bundle: Path) -> None:
    """A sparse file: reading it would take 2 GB of memory."""
    name, size = "graphs/image_encoder.fp32.onnx", MAX_GRAPH_BYTES + 1
    os.truncate(bundle / name, size)
    edit_manifest(bundle, lambda manifest: manifest["files"][name].update(bytes=size))
    code = (
        "import resource, sys; from pocketvl_runtime import load\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try:\n    load(sys.argv[1], 'onnx-fp32')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True)
    assert done.stdout == (
        f"BundleError {bundle / name} has {size} bytes, and at most {MAX_GRAPH_BYTES} are read; "
        "use a smaller variant\n"
    ), done.stderr


def test_the_caller_may_set_a_smaller_limit(whole_bundle: Path) -> None:
    sizes = json.loads((whole_bundle / "manifest.json").read_text())["files"]
    largest = max(sizes[f"graphs/{role}_encoder.fp32.onnx"]["bytes"] for role in ("image", "text"))
    load(whole_bundle, "onnx-fp32", max_graph_bytes=largest)
    with pytest.raises(PocketVLError, match=f"has {largest} bytes, and at most {largest - 1} are read"):
        load(whole_bundle, "onnx-fp32", max_graph_bytes=largest - 1)


# --- what docs/SECURITY.md tells to do ---------------------------------------------------------------


def documented() -> Callable[[str, str], list[float]]:
    """The example's function."""
    code = (ROOT / "docs" / "SECURITY.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    function: Callable[[str, str], list[float]] = names["embed_untrusted"]
    return function


def test_the_documented_process_with_limits_answers(whole_bundle: Path) -> None:
    image = whole_bundle / "golden" / "images" / "wide.jpg"
    got = documented()(str(whole_bundle), str(image))
    np.testing.assert_allclose(got, load(whole_bundle).embed_image(image), atol=1e-6)


def test_the_documented_process_with_limits_survives_a_graph_that_wants_all_memory(bundle: Path) -> None:
    """One that fills 16 GB with a constant before it answers."""
    path = bundle / "graphs" / "image_encoder.int8.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([2**32]), "much"))
    nodes = [
        helper.make_node("ConstantOfShape", ["much"], ["filled"]),
        helper.make_node("ReduceMax", ["filled"], ["most"], keepdims=0),
        helper.make_node("Add", ["embedding_before", "most"], ["embedding"]),
    ]
    model.graph.node[-1].output[0] = "embedding_before"
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    reseal(bundle)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        documented()(str(bundle), str(bundle / "golden" / "images" / "wide.jpg"))
    assert b"BackendError" in caught.value.stderr
