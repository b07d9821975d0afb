"""A component that no graph file can hold is refused before any work."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from pocketvl import api
from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint, parameter_counts, read_contract
from pocketvl.families.folders.weights import most_parameters
from pocketvl.pipelines.stages.lowering import check_graph_sizes
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime.manifest import Engine
from tests.families.test_weights import pickled
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip
from tests.families.vilt_folder import make_vilt_folder

BOTH = tuple(Engine)


@pytest.mark.parametrize("make", [make_tiny_clip, make_tiny_siglip, make_vilt_folder])
def test_parameters_are_counted_without_weights(make: object, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")  # type: ignore[operator]
    opened = open_checkpoint(folder)
    assert parameter_counts(read_contract(folder)) == {
        name: {path: each.numel() for path, each in component.module.named_parameters()}
        for name, component in opened.components.items()
    }
    assert most_parameters(folder) == sum(each.numel() for each in opened.model.state_dict().values())


def test_the_component_is_named_with_its_size_and_what_to_do(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    check_graph_sizes(folder, BOTH)
    counts = {
        name: sum(parameters.values()) for name, parameters in parameter_counts(read_contract(folder)).items()
    }
    least, most = sorted(counts, key=lambda name: counts[name])
    check_graph_sizes(folder, BOTH, counts[most] * 4)
    with pytest.raises(SourceError, match=rf"the {most} has {counts[most]:,} parameters.*pocketvl compress"):
        check_graph_sizes(folder, BOTH, counts[most] * 4 - 1)
    check_graph_sizes(pickled(folder), BOTH, counts[most] * 4)
    check_graph_sizes(folder, [Engine.ONNX], counts[most] * 4 - 1)  # its weights go into a file beside it
    assert counts[least] < counts[most]


def test_an_export_of_more_than_2_gib_is_refused_within_seconds(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    wide = {
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 3,
        "num_attention_heads": 32,
    }
    config["vision_config"].update(wide)
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig.from_dict(config))
    header, end = {}, 0
    for name, value in model.state_dict().items():
        if not name.endswith("position_ids"):
            size = value.numel() * 2
            shape = list(value.shape)
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    content = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:  # a sparse file: 1.2 GB that take no room
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + end)
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 2, size=40)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"the image_encoder has 605,.* 2\.25 GiB in fp32") as caught:
        api.export(folder, tmp_path / "out", calibration=tmp_path / "data", cache=tmp_path / "cache")
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()
