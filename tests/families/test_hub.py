"""Checkpoints by their hub ids: from a cache, from a hub on this machine, and without either."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from pocketvl import api
from pocketvl.errors import SourceError
from pocketvl.families.folders.hub import HubId, fetch, folder_name, parse_hub_id
from pocketvl.stage.contents import Contents
from pocketvl.tabletop.folder import write_tabletop
from tests.families.hub import COMMIT, fill_cache, serving
from tests.families.test_weights import pickled
from tests.families.tiny import make_tiny_clip

ORG = "some-org/tiny-clip"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hub = tmp_path / "home" / "hub"
    hub.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return hub


def command(*arguments: object, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from pocketvl.cli import main; main()"
    untold = {"HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"}
    kept = {name: value for name, value in os.environ.items() if name not in untold}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**kept, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hf:org/name", HubId("org/name")),
        ("hf:gpt2", HubId("gpt2")),
        ("hf:org/na.me_1@v1.0", HubId("org/na.me_1", "v1.0")),
        ("hf:org/name@refs/pr/1", HubId("org/name", "refs/pr/1")),
        ("org/name", None),
        ("../hf:org/name", None),
    ],
)
def test_hub_ids(text: str, wanted: HubId | None) -> None:
    assert parse_hub_id(text) == wanted
    assert parse_hub_id(Path(text)) == wanted


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:a/b@", "hf:a/b@../c", "hf:/etc"]
)
def test_what_is_no_hub_id(text: str) -> None:
    with pytest.raises(SourceError, match="is no hub id; write hf:ORG/NAME"):
        parse_hub_id(text)


def test_a_cached_checkpoint_opens_like_its_folder(cache: Path, tmp_path: Path) -> None:
    plain = make_tiny_clip(tmp_path / "plain", max_shard_size="40KB")
    snapshot = fill_cache(cache, ORG, plain)
    for source in (f"hf:{ORG}", f"hf:{ORG}@main", f"hf:{ORG}@{COMMIT}"):
        assert fetch(parse_hub_id(source) or HubId(""), offline=True) == snapshot
    opened = api.load_checkpoint(f"hf:{ORG}", offline=True)
    assert opened.space() == api.load_checkpoint(plain).space()
    assert opened.contract.name == folder_name(snapshot) == "tiny-clip"
    # the same content, the same keys of stages: nothing is made twice
    assert Contents().of(snapshot) == Contents().of(plain)


def test_a_revision_is_pinned(cache: Path, tmp_path: Path) -> None:
    snapshot = fill_cache(cache, ORG, make_tiny_clip(tmp_path / "plain"), "v1")
    assert fetch(HubId(ORG, "v1"), offline=True) == snapshot
    with pytest.raises(SourceError, match=rf"hf:{ORG}@v2 is not in the local cache.*--revision v2"):
        fetch(HubId(ORG, "v2"), offline=True)


def test_hf_hub_offline_is_heeded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="nothing is downloaded offline"):
        fetch(HubId(ORG))


def test_a_command_takes_a_hub_id(tmp_path: Path) -> None:
    fill_cache(tmp_path / "hub", ORG, make_tiny_clip(tmp_path / "plain"))
    done = command("inspect", f"hf:{ORG}", "--offline", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "tiny-clip"


def test_without_network_it_is_one_line_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        began = time.monotonic()
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = command("inspect", f"hf:{ORG}", home=tmp_path, HF_ENDPOINT=address)
        assert time.monotonic() - began < 20  # most of it Python's start
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    for part in (f"hf:{ORG}", "cannot be reached", "path of a copied folder", f"hf download {ORG}"):
        assert part in done.stderr


def test_a_hub_that_never_answers_is_waited_for_for_seconds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"cannot be reached.*timed out"):
            fetch(HubId(ORG))
        assert time.monotonic() - began < 12


@contextmanager
def hub_of(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with one repository; the files that are asked for."""
    with serving(ORG, source) as (address, asked), monkeypatch.context() as patched:
        patched.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield asked


@pytest.mark.parametrize("kind", ["safetensors", "shards", "pickle"])
def test_what_is_needed_is_downloaded_once_and_nothing_else(
    kind: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_tiny_clip(tmp_path / "plain", max_shard_size="40KB" if kind == "shards" else "5GB")
    weights = {path.name for path in source.glob("*safetensors*")}
    if kind == "pickle":
        pickled(source)
        weights = {"pytorch_model.bin"}
    else:
        (source / "pytorch_model.bin").write_bytes(b"large")
    for name in ("README.md", "tf_model.h5", "modeling_own.py", "flax_model.msgpack"):
        (source / name).write_text("not needed")
    with hub_of(source, monkeypatch) as asked:
        found = fetch(HubId(ORG))
        assert api.load_checkpoint(found).space() == api.load_checkpoint(source).space()
        described = {"config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"}
        assert set(asked) == described | weights
        assert len(asked) == len(set(asked))
        assert fetch(HubId(ORG)) == fetch(HubId(ORG, COMMIT)) == found
        assert len(asked) == len(set(asked))
    assert fetch(HubId(ORG), offline=True) == found
    assert found.is_relative_to(cache)


def test_where_the_hub_is_gone_the_cache_is_taken_and_it_is_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fill_cache(cache, ORG, make_tiny_clip(tmp_path / "plain"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch(HubId(ORG)) == snapshot
    assert f"revision {COMMIT[:12]} of the local cache is taken" in caplog.text


def test_what_the_hub_has_not_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_of(make_tiny_clip(tmp_path / "plain"), monkeypatch):
        for wanted, says in ((HubId("no/such"), "no such model"), (HubId(ORG, "v9"), "no revision 'v9'")):
            with pytest.raises(SourceError, match=says) as caught:
                fetch(wanted)
            assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_bundle_of_a_hub_id_has_the_repositorys_name(cache: Path, tmp_path: Path) -> None:
    fill_cache(cache, ORG, pickled(make_tiny_clip(tmp_path / "plain")))
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 4, size=40)
    result = api.export(
        f"hf:{ORG}",
        tmp_path / "out",
        calibration=tmp_path / "data",
        variants=("onnx-fp32",),
        cache=tmp_path / "cache",
        offline=True,
    )
    assert result.failures == ()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["model"]["name"] == "tiny-clip"
    assert any("pytorch_model.bin is a pickle" in note for note in result.report.notes)
