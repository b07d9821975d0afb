"""open_clip's models from the hub, and by the names that open_clip knows them by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from pocketvl import api
from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.folders.hub import HubId, fetch
from pocketvl.families.folders.open_clip_names import PretrainedName, parse_pretrained_name
from tests.families.drawn import write_json
from tests.families.hub import fill_cache, serving
from tests.families.tiny_open_clip import VIT, changed, make_tiny_open_clip, pickled

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pocketvl[open-clip]")

ORG, TINY = "some-org/tiny-open-clip", "Tiny-test-32"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and none of its network."""
    hub = tmp_path / "home" / "hub"
    hub.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return hub


@pytest.fixture
def tiny_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name with weights, as open_clip's own table has them."""
    from open_clip import factory, pretrained

    write_json(tmp_path / f"{TINY}.json", VIT)
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    open_clip.add_model_config(tmp_path / f"{TINY}.json")
    tags = {
        "drawn": {"hf_hub": f"{ORG}/", "mean": (0.5,) * 3, "std": (0.25,) * 3, "resize_mode": "squash"},
        "quick": {"hf_hub": f"{ORG}/", "quick_gelu": True},
        "elsewhere": {"url": "https://127.0.0.1:9/weights.pt", "hf_hub": ""},
    }
    monkeypatch.setitem(pretrained._PRETRAINED, TINY, tags)
    return f"open_clip:{TINY}/drawn"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", PretrainedName("ViT-B-32", "laion2b_s34b_b79k")),
        ("open_clip:ViT-B-32//data/epoch_3.pt", PretrainedName("ViT-B-32", "/data/epoch_3.pt")),
        ("hf:org/name", None),
        ("ViT-B-32/openai", None),
    ],
)
def test_names(text: str, wanted: PretrainedName | None) -> None:
    assert parse_pretrained_name(text) == wanted


@pytest.mark.parametrize("text", ["open_clip:", "open_clip:ViT-B-32", "open_clip:/x", "open_clip:a b/c"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(SourceError, match=r"write open_clip:NAME/PRETRAINED, as open_clip:ViT-B-32/"):
        parse_pretrained_name(text)


def test_a_name_is_resolved_by_open_clips_table_and_the_hubs_cache(
    tiny_name: str, cache: Path, tmp_path: Path
) -> None:
    plain = make_tiny_open_clip(tmp_path / "plain")
    fill_cache(cache, ORG, plain)
    found = api.fetch_checkpoint(tiny_name, offline=True, cache=tmp_path / "cache")
    assert found.name == f"{TINY}-drawn"
    opened = open_checkpoint(found)
    assert opened.contract.name == f"{TINY}-drawn"
    assert opened.preprocess.normalized_in_graph.mean == (0.5, 0.5, 0.5)
    assert [step.op for step in opened.preprocess.steps] == ["resize"]
    weights = open_checkpoint(plain).model.state_dict()
    assert {name: value.tolist() for name, value in opened.model.state_dict().items()} == {
        name: value.tolist() for name, value in weights.items()
    }
    assert api.fetch_checkpoint(tiny_name, offline=True, cache=tmp_path / "cache") == found


def test_a_name_with_a_file_of_weights(tiny_name: str, tmp_path: Path) -> None:
    plain = make_tiny_open_clip(tmp_path / "plain")
    space = open_checkpoint(plain).space()
    file = pickled(plain, "epoch_3.pt", training=True) / "epoch_3.pt"
    found = api.fetch_checkpoint(f"open_clip:{TINY}/{file}", cache=tmp_path / "cache")
    assert found == api.fetch_checkpoint(Path(f"open_clip:{TINY}/{file}"), cache=tmp_path / "cache")
    assert found.name == f"{TINY}-epoch_3"
    opened = open_checkpoint(found)
    assert opened.space() == space
    assert any("is a pickle" in note for note in opened.contract.notes)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ViT-B-23/openai", "has no model 'ViT-B-23'; it has ViT-B-"),
        ("ViT-B-32/laion9b", "no weights 'laion9b' of ViT-B-32, and there is no such file; it has openai, "),
        ("ViT-B-32/openai", "trained with QuickGELU; take open_clip:ViT-B-32-quickgelu/openai"),
        ("RN50/cc12m", "its image tower is a ResNet; supported are"),
        ("ViT-L-14-CLIPA/datacomp1b", "'bert-base-uncased', which no name leads to; take hf:UCSC-VLAA/"),
        (f"{TINY}/drawn", f"{TINY}/FILE"),
        (f"{TINY}/elsewhere", f"{TINY}/FILE"),
        (f"{TINY}/quick", f"take open_clip:{TINY}-quickgelu/quick"),
    ],
)
def test_what_a_name_does_not_lead_to_is_one_line(
    name: str, says: str, tiny_name: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        api.fetch_checkpoint(f"open_clip:{name}", offline=True, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert f"open_clip:{name}" in str(caught.value)


def test_without_open_clip_a_name_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(SourceError, match=r'not installed: pip install "pocketvl\[open-clip\]"'):
        api.fetch_checkpoint("open_clip:ViT-B-32/openai", cache=tmp_path / "cache")


def test_of_a_repository_of_open_clips_its_own_weights_are_downloaded(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_tiny_open_clip(tmp_path / "plain", model_cfg=changed(VIT, custom_text=True))
    (source / "config.json").write_text('{"architecture": "vit"}')  # as timm's repositories have
    for name in ("model.safetensors", "open_clip_pytorch_model.bin", "README.md"):
        (source / name).write_bytes(b"not needed")
    with serving(ORG, source) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        found = fetch(HubId(ORG))
        assert sorted(asked) == ["config.json", "open_clip_config.json", "open_clip_model.safetensors"]
    assert fetch(HubId(ORG), offline=True) == found
    opened = open_checkpoint(found)
    assert opened.contract.name == "tiny-open-clip"
    assert opened.contract.family == "open-clip"


def test_inspect_tells_of_an_open_clip_model(tmp_path: Path) -> None:
    found = api.inspect(make_tiny_open_clip(tmp_path / "model"))
    assert found.family == "open-clip"
    assert json.dumps(str(found)).count("image_encoder")
