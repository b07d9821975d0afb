"""Bundles that are none, or damaged, or made to reach outside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.hostile.conftest import Refuses, run_command
from tests.runtime.bundles import edit_manifest, reseal

GRAPH = "image_encoder.int8.onnx"
COMMANDS = ("info", "match", "classify", "embed", "selftest", "bench")


def arguments(command: str, bundle: Path, image: Path) -> list[str | Path]:
    more: dict[str, list[str | Path]] = {
        "match": ["--image", image, "--text", "cube"],
        "classify": ["--image", image],
        "embed": ["--image", image],
    }
    return [command, bundle, *more.get(command, [])]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_bundle_is_one_line_for_every_command(
    command: str, tmp_path: Path, image: Path, refuses: Refuses
) -> None:
    assert "does not exist" in refuses(*arguments(command, tmp_path / "none", image))


def rename_out(manifest: Any, path: str) -> None:
    manifest["files"][path] = manifest["files"].pop(f"graphs/{GRAPH}")
    manifest["variants"]["onnx-int8"]["files"]["image_encoder"]["file"] = path


def step(manifest: Any, number: int) -> Any:
    return manifest["processors"]["image"]["steps"][number]


def port(manifest: Any, kind: str) -> Any:
    return manifest["graphs"]["image_encoder"][kind][0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.update(version="3.0"),
            "version is 3.0, and this runtime reads 2.x; pip install --upgrade",
        ),
        (lambda m: m.pop("graphs"), "graphs is missing"),
        (lambda m: rename_out(m, f"../{GRAPH}"), f"'../{GRAPH}' does not stay inside the bundle"),
        (lambda m: rename_out(m, f"/etc/{GRAPH}"), f"'/etc/{GRAPH}' does not stay inside the bundle"),
        (lambda m: m["files"][f"graphs/{GRAPH}"].update(sha256="0" * 64), f"{GRAPH} is damaged: "),
        (lambda m: m["files"][f"graphs/{GRAPH}"].update(bytes=1), f"{GRAPH} is damaged: "),
        (lambda m: step(m, 0).update(size=2**20), "more than 89000000 pixels"),
        (lambda m: step(m, 1).update(height=2**31, width=1), "more than 89000000 pixels"),
        (
            lambda m: m["processors"]["text"].update(max_length=2**31),
            "max_length 2147483648 must be 1 to 65536",
        ),
        (lambda m: m["processors"]["text"]["pad"].update(id=2**40), "pad: id 1099511627776 must be 0 to"),
        (
            lambda m: m["graphs"]["image_encoder"]["outputs"].append(port(m, "outputs")),
            "two ports have one name",
        ),
        (lambda m: port(m, "inputs").update(shape=[1, 8, 8, 3]), "'pixels' pixels uint8 [1, 8, 8, 3] is wan"),
        (
            lambda m: port(m, "outputs").update(shape=[1, 10**9]),
            "its embeddings differ: 'embedding' embedding",
        ),
        (
            lambda m: port(m, "outputs").update(shape=[]),
            "is 'embedding' embedding float32 [], and one float [1, D]",
        ),
        (lambda m: m.update(variants={}), "holds no variant; export the bundle again"),
    ],
)
def test_a_manifest_made_to_hurt_is_refused(
    bundle: Path, image: Path, refuses: Refuses, edit: Callable[[Any], None], message: str
) -> None:
    edit_manifest(bundle, edit)
    assert message in refuses(*arguments("match", bundle, image))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"null", b"9" * 10_000])
def test_a_manifest_that_is_none_is_refused(bundle: Path, image: Path, refuses: Refuses, text: bytes) -> None:
    (bundle / "manifest.json").write_bytes(text)
    assert "manifest.json" in refuses(*arguments("match", bundle, image))


def test_a_link_gives_nothing_away(bundle: Path, image: Path, refuses: Refuses) -> None:
    """A link may lead anywhere, for a hub's cache is made of them: what is there is held to its checksum."""
    graph, secret = bundle / "graphs" / GRAPH, bundle.parent / "secret"
    size = graph.stat().st_size
    graph.unlink()
    secret.write_bytes(b"s3cret" * size)
    graph.symlink_to(secret)
    assert f"{GRAPH} is damaged: {6 * size} bytes, expected {size}" in refuses(
        *arguments("match", bundle, image)
    )
    secret.write_bytes((b"s3cret" * size)[:size])
    line = refuses(*arguments("match", bundle, image))
    assert f"{GRAPH} is damaged: its sha256 is not the expected" in line
    assert "s3cret" not in line
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").symlink_to(secret)
    secret.write_text('{"s3cret": 1}')
    for command in COMMANDS:
        line = refuses(*arguments(command, bundle, image))
        assert "secret, which is no manifest of format 2.0; copy the bundle again" in line
        assert "s3cret" not in line


@pytest.mark.parametrize("path", ["manifest.json", "tokenizer.json", f"graphs/{GRAPH}"])
@pytest.mark.parametrize("kind", ["loop", "device", "pipe"])
def test_what_is_no_file_is_not_read(
    bundle: Path, image: Path, refuses: Refuses, path: str, kind: str
) -> None:
    (bundle / path).unlink()
    if kind == "loop":
        (bundle / path).symlink_to(Path(path).name)
    elif kind == "device":
        (bundle / path).symlink_to("/dev/zero")
    else:
        os.mkfifo(bundle / path)
    line = refuses(*arguments("match", bundle, image))
    assert Path(path).name in line
    assert "cannot be read (" in line


def test_no_path_is_no_bundle(bundle: Path, image: Path) -> None:
    for command in COMMANDS:
        words = arguments(command, bundle, image)
        words[1] = ""
        done = run_command(words, cwd=bundle)  # which is not taken instead
        assert done.returncode == 1
        assert done.stderr.startswith("error: the path of the bundle is empty")


def test_a_graph_whose_weights_lie_in_another_file_is_refused(
    bundle: Path, image: Path, refuses: Refuses
) -> None:
    """ONNX Runtime, given bytes, would take them from the working directory, which nothing has checked."""
    path = bundle / "graphs" / GRAPH
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    reseal(bundle)
    for folder in (bundle, path.parent):
        done = run_command(arguments("match", bundle, image), folder)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
        assert line.startswith(f"error: {GRAPH}: some of its weights lie in another file")


def test_a_graph_that_fails_while_running_is_one_line(bundle: Path, image: Path, refuses: Refuses) -> None:
    value = json.loads((bundle / "tokenizer.json").read_text())
    value["model"]["vocab"]["cube"] = 500  # beyond the token table
    (bundle / "tokenizer.json").write_text(json.dumps(value))
    reseal(bundle)
    line = refuses(*arguments("match", bundle, image), "--variant", "onnx-fp32")
    assert line.startswith("error: text_encoder.fp32.onnx: ONNX Runtime failed (")


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t["post_processor"]["single"][0]["SpecialToken"].update(id="<none>"),
        lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        lambda t: t.update(normalizer=replace({"Regex": "(c+)+x|(.*)*y"}, "")),
    ],
    ids=["template", "pre-tokenizer", "normalizer", "backtracking"],
)
def test_a_tokenizer_that_panics_is_one_line(
    bundle: Path, image: Path, edit: Callable[[Any], None], refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = json.loads((bundle / "tokenizer.json").read_text())
    edit(value)
    (bundle / "tokenizer.json").write_text(json.dumps(value))
    reseal(bundle)
    words: list[str | Path] = ["match", bundle, "--image", image, "--text", "c" * 40]
    line = refuses(*words)
    assert line.startswith("error: tokenizer.json ")
    monkeypatch.setenv("POCKETVL_DEBUG", "1")  # shows what Rust itself says
    shown = run_command(words).stderr.splitlines()
    assert shown[-1] == line
    assert len(shown) == 1 or any("panicked at" in each for each in shown)


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.update(normalizer=replace({"String": "c"}, "c" * 10**6)),
        lambda t: t.update(
            normalizer={"type": "Sequence", "normalizers": [replace({"String": "c"}, "cc")] * 40}
        ),
        lambda t: t.update(added_tokens=[added("c" * 30_000, 500 + k) for k in range(300)]),
    ],
    ids=["long content", "doubling", "added tokens"],
)
def test_a_tokenizer_that_would_fill_the_memory_is_one_line(
    bundle: Path, image: Path, edit: Callable[[Any], None], refuses: Refuses
) -> None:
    value = json.loads((bundle / "tokenizer.json").read_text())
    edit(value)
    (bundle / "tokenizer.json").write_text(json.dumps(value))
    reseal(bundle)
    line = refuses("match", bundle, "--image", image, "--text", "c" * 100)
    assert line.startswith("error: tokenizer.json could fill the memory: ")
    assert line.endswith("; do not use this bundle")


def added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    return {"id": number, "content": content, "normalized": True, **flags}


def test_what_a_line_quotes_out_of_a_bundle_is_short(bundle: Path, image: Path, refuses: Refuses) -> None:
    edit_manifest(bundle, lambda m: m.update({"x" * 10**6: 1}))
    line = refuses(*arguments("match", bundle, image))
    assert len(line) <= 300
    assert line.startswith(f"error: {bundle}/manifest.json: xxx")
    assert "is not a key of this schema" in line


def test_a_tokenizer_whose_ids_do_not_fit_is_refused(bundle: Path, image: Path, refuses: Refuses) -> None:
    value = json.loads((bundle / "tokenizer.json").read_text())
    value["post_processor"] = {"type": "BertProcessing", "sep": ["s", 2**32 - 1], "cls": ["c", 2**32 - 1]}
    (bundle / "tokenizer.json").write_text(json.dumps(value))
    reseal(bundle)
    assert "tokenizer.json gives 3 tokens up to id 4294967295" in refuses(*arguments("match", bundle, image))


def test_a_missing_graph_is_named(bundle: Path, image: Path, refuses: Refuses) -> None:
    (bundle / "graphs" / GRAPH).unlink()
    assert f"{GRAPH} cannot be read (No such file or directory)" in refuses(
        *arguments("match", bundle, image)
    )


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_a_graph_that_is_none_though_its_checksum_is_right_is_named(
    bundle: Path, image: Path, refuses: Refuses, engine: str
) -> None:
    (bundle / "graphs" / f"image_encoder.fp32.{engine}").write_bytes(b"\0" * 500)
    reseal(bundle)
    line = refuses(*arguments("match", bundle, image), "--variant", f"{engine}-fp32")
    assert f"image_encoder.fp32.{engine}: " in line
    assert "cannot load it" in line


def test_a_tokenizer_that_is_none_though_its_checksum_is_right_is_named(
    bundle: Path, image: Path, refuses: Refuses
) -> None:
    (bundle / "tokenizer.json").write_text("{}")
    reseal(bundle)
    assert "tokenizer.json is not a tokenizer" in refuses(*arguments("match", bundle, image))


def test_a_variant_that_is_not_there_lists_those_that_are(
    bundle: Path, image: Path, refuses: Refuses
) -> None:
    line = refuses(*arguments("match", bundle, image), "--variant", "onnx-int3")
    assert "no variant 'onnx-int3'; it has onnx-fp32, onnx-int8, tflite-fp32" in line


def test_a_golden_pack_that_is_none_is_named(bundle: Path, image: Path, refuses: Refuses) -> None:
    (bundle / "golden" / "golden.json").write_text(
        json.dumps({"format": "pocketvl-golden", "version": "2.0"})
    )
    reseal(bundle)
    for command in ("selftest", "bench"):
        assert "golden.json: inputs is missing" in refuses(*arguments(command, bundle, image))


def test_missing_engines_say_what_to_install(
    bundle: Path, image: Path, refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import importlib.util, os\n"
        "real = importlib.util.find_spec\n"
        "hidden = os.environ['HIDDEN'].split(',')\n"
        "importlib.util.find_spec = lambda name, *more: None if name in hidden else real(name, *more)\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(hide), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.setenv("HIDDEN", "onnxruntime")
    line = refuses(*arguments("match", bundle, image), "--variant", "onnx-int8")
    assert "variant onnx-int8 needs an engine that is not installed: pip install onnxruntime" in line
    assert "these run: tflite-fp32" in line
    done = run_command([*arguments("match", bundle, image), "--json"])
    assert json.loads(done.stdout)["variant"] == "tflite-fp32"
    monkeypatch.setenv("HIDDEN", "onnxruntime,ai_edge_litert,tflite_runtime,tensorflow")
    for command in ("match", "selftest", "bench"):
        assert "pip install onnxruntime or ai-edge-litert" in refuses(*arguments(command, bundle, image))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_bundle_that_may_not_be_read_is_one_line(bundle: Path, image: Path, refuses: Refuses) -> None:
    (bundle / "manifest.json").chmod(0)
    assert "cannot be read (Permission denied)" in refuses(*arguments("match", bundle, image))
