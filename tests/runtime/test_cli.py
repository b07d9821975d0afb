"""`pocketvl-run`: results on stdout, the rest on stderr, and what the exit status says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime import load
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.variant_choice import default_threads
from pocketvl_runtime.version import __version__
from tests.runtime import graphs
from tests.runtime.bundles import VARIANTS, edit_manifest, reseal

IMAGE = "golden/images/wide.jpg"


def run(*arguments: str | Path | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pocketvl_runtime", *arguments],
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def answer(*arguments: str | Path) -> Any:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_match_prints_one_object_with_exactly_these_keys(whole_bundle: Path) -> None:
    got = answer(
        "match",
        whole_bundle,
        "--image",
        whole_bundle / IMAGE,
        "--text",
        "the red cube",
        "--text",
        "green",
        "--json",
    )
    assert list(got) == ["variant", "results", "timing_ms"]
    assert got["variant"] == "onnx-int8"
    assert [list(row) for row in got["results"]] == [["text", "similarity", "probability"]] * 2
    assert [row["text"] for row in got["results"]] == ["the red cube", "green"]
    assert list(got["timing_ms"]) == ["decode", "preprocess", "tokens", "image", "text", "post", "total"]
    expected = load(whole_bundle).match(whole_bundle / IMAGE, ["the red cube", "green"]).results
    assert [row["similarity"] for row in got["results"]] == [row.similarity for row in expected]


def test_match_for_people_sorts_by_probability(whole_bundle: Path) -> None:
    done = run("match", whole_bundle, "--image", whole_bundle / IMAGE, "--text", "a", "--text", "green")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["green", "a"]
    assert len({line.index("%") for line in lines}) == 1
    assert "onnx-int8" in done.stderr


def test_variant_and_threads_are_obeyed(whole_bundle: Path) -> None:
    common = (whole_bundle, "--image", whole_bundle / IMAGE, "--text", "a", "--json", "--threads", "1")
    for variant in VARIANTS:
        assert answer("match", *common, "--variant", variant)["variant"] == variant


def test_classify_uses_the_bundles_labels_or_those_given(whole_bundle: Path) -> None:
    common = (whole_bundle, "--image", whole_bundle / IMAGE, "--json")
    got = answer("classify", *common)
    assert [list(row) for row in got["results"]] == [["label", "similarity", "probability"]] * 3
    got = answer("classify", *common, "--label", "ball", "--label", "cube")
    assert [row["label"] for row in got["results"]] == ["ball", "cube"]
    assert abs(sum(row["probability"] for row in got["results"]) - 1) < 1e-9


def test_classify_takes_templates_one_by_one_and_from_a_file(whole_bundle: Path, tmp_path: Path) -> None:
    common = (
        "classify",
        whole_bundle,
        "--image",
        whole_bundle / IMAGE,
        "--json",
        "--label",
        "ball",
        "--label",
        "cube",
    )
    (tmp_path / "templates.txt").write_text("the {label}\n{label}\n")
    given = answer(*common, "--template", "the {label}", "--template", "{label}")["results"]
    assert answer(*common, "--templates", tmp_path / "templates.txt")["results"] == given
    assert answer(*common)["results"] != given
    done = run(*common, "--template", "no place")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no {label} in it" in done.stderr
    done = run(*common, "--templates", tmp_path / "gone.txt")
    assert done.returncode == 1
    assert "gone.txt cannot be read: No such file" in done.stderr


def test_embed_prints_vectors(whole_bundle: Path) -> None:
    arguments = (whole_bundle, "--image", whole_bundle / IMAGE, "--text", "green", "--text", "naïve")
    done = run("embed", *arguments)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("text") for row in rows] == [None, "green", "naïve"]
    assert {len(row["embedding"]) for row in rows} == {graphs.DIM}
    got = answer("embed", *arguments, "--json")
    assert got["results"] == rows
    assert got["space"] == "sha256:tiny"


def test_the_version_is_that_of_the_code() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", ["info", "match", "classify", "embed", "selftest", "bench"])
def test_every_command_takes_variant_threads_and_json(command: str, whole_bundle: Path) -> None:
    more: dict[str, list[str | Path]] = {
        "match": ["--image", whole_bundle / IMAGE, "--text", "a"],
        "classify": ["--image", whole_bundle / IMAGE],
        "embed": ["--text", "green"],
        "bench": ["--runs", "1"],
    }
    got = answer(
        command,
        whole_bundle,
        *more.get(command, []),
        "--variant",
        "onnx-fp32",
        "--threads",
        "3",
        "--json",
    )
    assert list(got.get("variants", [got.get("variant")])) == ["onnx-fp32"]
    if command == "info":
        assert got["threads"] == 3
    if command == "bench":
        assert [each["threads"] for each in got["variants"]["onnx-fp32"]["timings"]] == [3]


def test_help_says_how_a_variant_is_chosen() -> None:
    help_text = " ".join(run("match", "--help").stdout.split())
    assert "int8, then fp16, then fp32, then others; TFLite before ONNX" in help_text


def test_info_of_one_variant_shows_that_one(whole_bundle: Path) -> None:
    done = run("info", whole_bundle, "--variant", "onnx-int8")
    assert "onnx-int8" in done.stdout
    assert "onnx-fp32" not in done.stdout
    done = run("info", whole_bundle, "--variant", "onnx-int4")
    assert done.returncode == 1
    assert "has no variant 'onnx-int4'" in done.stderr


def test_info_says_how_many_threads_an_answer_takes(whole_bundle: Path) -> None:
    assert answer("info", whole_bundle, "--json")["threads"] == load(whole_bundle).threads
    assert run("info", whole_bundle, "--threads", "1").stdout.endswith("; 1 thread\n")


def test_what_an_engine_does_at_a_cost_is_told_once(whole_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pocketvl_runtime.isa as isa\nisa.has_exact_int8 = lambda: False\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    commands: list[list[str | Path]] = [
        ["classify", "--image", whole_bundle / IMAGE],
        ["selftest"],
        ["bench", "--runs", "1"],
    ]
    for command in commands:
        done = run(*command, whole_bundle, PYTHONPATH=path, PYTHONWARNINGS="always")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("costs some speed") == 1
        (line,) = [line for line in done.stderr.splitlines() if "int8" in line and not line.startswith("(")]
        assert line.startswith("note: ONNX Runtime's int8 kernels saturate")


def test_what_people_read_cannot_steer_their_terminal(bundle: Path) -> None:
    escape = "\x1b[31m"
    edit_manifest(bundle, lambda m: m["model"].update(name=f"ti{escape}ny", family=f"clip{escape}"))
    edit_manifest(bundle, lambda m: m["tasks"]["classify"].update(labels=[f"red{escape}cube", "green"]))
    commands: list[list[str | Path]] = [
        ["info", bundle],
        ["classify", bundle, "--image", bundle / IMAGE],
        ["match", bundle, "--image", bundle / IMAGE, "--text", f"ball{escape}\r\n"],
    ]
    for arguments in commands:
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert r"\x1b[31m" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    got = answer("classify", bundle, "--image", bundle / IMAGE, "--json")
    assert got["results"][0]["label"] == f"red{escape}cube"


def test_info_says_what_there_is_and_what_runs_here(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["variants"]["tflite-fp32"].update(status="experimental"))
    got = answer("info", bundle, "--json")
    assert set(got["variants"]) == set(VARIANTS)
    assert got["variants"]["onnx-int8"]["status"] == "accepted"
    assert got["variants"]["tflite-fp32"]["status"] == "experimental"
    assert all(row["runs_here"] for row in got["variants"].values())
    size = sum(p.stat().st_size for p in (bundle / "graphs").glob("*.int8.onnx"))
    assert got["variants"]["onnx-int8"]["size_bytes"] == size
    done = run("info", bundle)
    assert done.returncode == 0
    assert "tiny (clip): classify, match" in done.stdout
    assert all(name in done.stdout for name in VARIANTS)


def test_selftest_passes_and_fails_by_its_exit_status(bundle: Path) -> None:
    done = run("selftest", bundle)
    assert done.returncode == 0
    assert "all good" in done.stdout
    path = bundle / "golden" / "golden.json"
    value = json.loads(path.read_text())
    value["inputs"]["text"][1]["ids"][1] += 1
    path.write_text(json.dumps(value))
    reseal(bundle)
    done = run("selftest", bundle, "--variant", "onnx-fp32", "--threads", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failures"] == ["golden text 1: the token ids differ"]
    assert done.stderr.splitlines()[-1] == "error: selftest failed: golden text 1: the token ids differ"


def test_bench_prints_figures(whole_bundle: Path) -> None:
    got = answer(
        "bench",
        whole_bundle,
        "--variant",
        "onnx-fp32",
        "--variant",
        "tflite-fp32",
        "--threads",
        "1",
        "--runs",
        "2",
        "--json",
    )
    result = BenchResult.from_json(json.dumps(got), "stdout")
    assert set(result.variants) == {"onnx-fp32", "tflite-fp32"}
    assert result.variants["onnx-fp32"].timing(1).stages["image"].median > 0
    done = run("bench", whole_bundle, "--runs", "1", "--variant", "onnx-fp32")
    assert len(done.stdout.splitlines()) == 1 + len({1, default_threads()})


def test_a_cut_text_is_warned_of_on_stderr(whole_bundle: Path) -> None:
    done = run(
        "match",
        whole_bundle,
        "--image",
        whole_bundle / IMAGE,
        "--text",
        "ball " * 40,
        "--json",
        "--variant",
        "onnx-fp32",
    )
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: text 0 has 42 tokens and the model reads 12: its end was cut off"
    ]
    assert json.loads(done.stdout)["results"][0]["probability"] == 1.0


def test_a_terminal_that_is_not_utf8_is_no_reason_to_fail(whole_bundle: Path) -> None:
    arguments = ("match", whole_bundle, "--image", whole_bundle / IMAGE, "--text", "日本")
    for more in ((), ("--json",)):
        done = run(*arguments, *more, PYTHONIOENCODING="latin-1")
        assert done.returncode == 0, done.stderr
        if more:
            assert json.loads(done.stdout)["results"][0]["text"] == "日本"
        else:
            assert r"\u65e5\u672c" in done.stdout


def test_a_reader_that_goes_away_makes_no_noise(whole_bundle: Path) -> None:
    command = [sys.executable, "-m", "pocketvl_runtime", "info", str(whole_bundle)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("match",),
        ("match", "B"),
        ("match", "B", "--image", "x"),
        ("match", "B", "--image", "x", "--text", "a", "--threads", "0"),
        ("info", "B", "--threads", "257"),
        ("selftest", "B", "--threads", "257"),
        ("bench", "B", "--threads", "257"),
        ("bench", "B", "--runs", "many"),
        ("embed", "B"),
        ("guess", "B"),
        ("info", "B", "--loud"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: pocketvl-run" in done.stderr
    assert "Error: " in done.stderr


def test_the_command_starts_without_anything_heavy() -> None:
    code = (
        "import sys, pocketvl_runtime\n"
        "assert not {'numpy', 'PIL', 'tokenizers', 'click'} & set(sys.modules), 'lean'\n"
        "from pocketvl_runtime.cli import main\n"
        "sys.argv = ['pocketvl-run', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = {'torch', 'onnx', 'tensorflow', 'transformers', 'onnxruntime', 'pocketvl'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("info", "match", "classify", "embed", "selftest", "bench"):
        assert f"  {command} " in done.stdout
