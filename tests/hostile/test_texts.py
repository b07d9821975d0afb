"""Texts that are none, or not text, or too long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl_runtime import load
from tests.hostile.conftest import Refuses, run_command


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_an_empty_text_is_refused(whole_bundle: Path, image: Path, refuses: Refuses, text: str) -> None:
    line = refuses("match", whole_bundle, "--image", image, "--text", "cube", "--text", text)
    assert line == "error: text 1 is empty"


def test_a_text_that_is_not_utf8_is_refused(whole_bundle: Path, image: Path, refuses: Refuses) -> None:
    for command, option, name in (
        ("match", "--text", "text"),
        ("embed", "--text", "text"),
        ("classify", "--label", "label"),
    ):
        line = refuses(command, whole_bundle, "--image", image, option, b"caf\xe9")
        assert line == rf"error: {name} 0 is not valid Unicode (character 3 is '\udce9'); pass UTF-8"


def test_an_over_long_text_is_cut_as_the_model_was_trained_and_it_is_said(
    whole_bundle: Path, image: Path
) -> None:
    long = "red ball " * 10_000
    done = run_command(
        [
            "match",
            whole_bundle,
            "--image",
            image,
            "--text",
            long,
            "--text",
            "red ball " * 5,
            "--json",
            "--variant",
            "onnx-fp32",
        ]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "warning: text 0 has 20002 tokens and the model reads 12: its end was cut off\n"
    first, second = json.loads(done.stdout)["results"]
    assert first["text"] == long
    assert first["similarity"] == second["similarity"]


def test_an_over_long_text_is_one_line_where_warnings_are_errors(
    whole_bundle: Path, image: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error::UserWarning")
    line = refuses("match", whole_bundle, "--image", image, "--text", "ball " * 40, "--variant", "onnx-fp32")
    assert line == "error: text 0 has 42 tokens and the model reads 12: its end was cut off"


@pytest.mark.parametrize("filters", ["error", "ignore", "always"])
def test_the_users_filters_of_warnings_are_no_traceback(
    whole_bundle: Path, image: Path, filters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", filters)
    for variant in ("onnx-int8", "tflite-fp32"):
        done = run_command(
            ["match", whole_bundle, "--image", image, "--text", "ball " * 40, "--variant", variant]
        )
        assert done.returncode == (1 if filters == "error" else 0)
        assert "Traceback" not in done.stderr
        assert ("its end was cut off" in done.stderr) == (filters != "ignore")


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        "\u202e",
        "a\u0301\u0301\u0301",
        "👩‍👩‍👧‍👦",
        "<eos>",
        "<bos> cube",
        "\ufffe",
        "💣" * 5000,
        "%s%n{label}",
        "-",
    ],
)
def test_odd_text_is_text(whole_bundle: Path, text: str) -> None:
    model = load(whole_bundle, "onnx-fp32")
    encoding = model.tokenizer.encode([text])
    vector = model.embed_ids(encoding.ids[0])
    assert abs(float((vector**2).sum()) - 1) < 1e-5
