"""Specifications come back as they were written, and what a hand got wrong in one is named with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvl.errors import DataError, RecipeError
from pocketvl.network.specification import (
    ACTIVATION_8,
    BLOCKS_4,
    CHANNELS_8,
    GROUP_SIZES,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    SPECIFICATION_FILE,
    ComponentSpec,
    Granularity,
    GridSpec,
    LayerSpec,
    Mode,
    ProductSpec,
    Scheme,
)

SPEC = ComponentSpec(
    {"blocks.0.fc": INT8_STATIC, "blocks.1.fc": INT4_DYNAMIC, "table": INT8_TABLE, "head": INT8_DYNAMIC},
    {"blocks.0.attention.scores": ProductSpec(ACTIVATION_8, replace(ACTIVATION_8, bits=6))},
)
GRIDS = st.builds(
    GridSpec,
    st.integers(2, 8),
    st.sampled_from(Scheme),
    st.sampled_from([Granularity.PER_TENSOR, Granularity.PER_CHANNEL]),
) | st.builds(
    GridSpec,
    st.integers(2, 8),
    st.sampled_from(Scheme),
    st.just(Granularity.PER_GROUP),
    st.sampled_from(GROUP_SIZES),
)
LAYERS = st.builds(LayerSpec, st.just(Mode.STATIC), GRIDS, GRIDS, GRIDS) | st.builds(
    LayerSpec, st.sampled_from([Mode.DYNAMIC, Mode.WEIGHT_ONLY]), GRIDS
)


def test_a_specification_comes_back_as_it_was(tmp_path: Path) -> None:
    SPEC.save(tmp_path)
    assert ComponentSpec.load(tmp_path) == SPEC
    first = (tmp_path / SPECIFICATION_FILE).read_bytes()
    ComponentSpec.load(tmp_path).save(tmp_path)
    assert (tmp_path / SPECIFICATION_FILE).read_bytes() == first


@given(st.dictionaries(st.text(max_size=8), LAYERS, max_size=3), st.tuples(GRIDS, GRIDS))
def test_any_specification_comes_back(
    tmp_path_factory: pytest.TempPathFactory, layers: dict[str, LayerSpec], grids: tuple[GridSpec, GridSpec]
) -> None:
    folder = tmp_path_factory.mktemp("spec")
    spec = ComponentSpec(layers, {"attention.values": ProductSpec(*grids)})
    spec.save(folder)
    assert ComponentSpec.load(folder) == spec


@given(GRIDS)
def test_grids_have_as_many_steps_as_their_bits_say(grid: GridSpec) -> None:
    steps = grid.highest - grid.lowest + 1
    assert steps == 2**grid.bits - (grid.scheme is Scheme.SYMMETRIC)
    assert grid.lowest == (0 if grid.scheme is Scheme.AFFINE else -grid.highest)


@pytest.mark.parametrize("bits", [-8, 0, 1, 9, 16])
def test_grids_of_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(RecipeError, match=f"2 to 8 bits are known, not of {bits}"):
        replace(CHANNELS_8, bits=bits)


@pytest.mark.parametrize("size", [None, 0, 16, 33, 256])
def test_groups_of_other_sizes_are_refused(size: int | None) -> None:
    with pytest.raises(RecipeError, match=f"group_size is {size}; there are 32, 64, 128"):
        replace(BLOCKS_4, group_size=size)


@pytest.mark.parametrize("granularity", [Granularity.PER_TENSOR, Granularity.PER_CHANNEL])
def test_a_group_size_is_for_groups(granularity: Granularity) -> None:
    with pytest.raises(RecipeError, match=f"not {granularity.value}"):
        GridSpec(4, Scheme.SYMMETRIC, granularity, 32)


@pytest.mark.parametrize(
    ("mode", "grids"),
    [
        (Mode.STATIC, (None, None)),
        (Mode.STATIC, (ACTIVATION_8, None)),
        (Mode.STATIC, (None, ACTIVATION_8)),
        (Mode.DYNAMIC, (ACTIVATION_8, None)),
        (Mode.DYNAMIC, (None, ACTIVATION_8)),
        (Mode.WEIGHT_ONLY, (ACTIVATION_8, ACTIVATION_8)),
    ],
)
def test_only_static_layers_have_grids_for_activations(
    mode: Mode, grids: tuple[GridSpec | None, GridSpec | None]
) -> None:
    with pytest.raises(RecipeError, match=f"a {mode.value} layer"):
        LayerSpec(mode, CHANNELS_8, *grids)


def edited(folder: Path, edit: Callable[[Any], None]) -> Path:
    SPEC.save(folder)
    path = folder / SPECIFICATION_FILE
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return folder


def put(*places: str, value: object) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for place in places[:-1]:
            document = document[place]
        document[places[-1]] = value

    return edit


WEIGHTS = ("layers", "blocks.1.fc", "weights")


@pytest.mark.parametrize(
    ("edit", "where", "why"),
    [
        (put(*WEIGHTS, "bits", value="many"), "layers.blocks.1.fc.weights.bits", "integer"),
        (put(*WEIGHTS, "scheme", value="skew"), "layers.blocks.1.fc.weights.scheme", "symmetric"),
        (put("layers", "head", value={}), "layers.head.mode", "required"),
        (put("layers", value=3), "layers", "mapping|dictionary"),
        (put("products", value={"x.scores": {}}), "products.x.scores.left", "required"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_place(
    edit: Callable[[Any], None], where: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"{SPECIFICATION_FILE}: {where}: .*({why})") as caught:
        ComponentSpec.load(edited(tmp_path, edit))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (put(*WEIGHTS, "bits", value=9), "not of 9"),
        (put(*WEIGHTS, "group_size", value=48), "group_size is 48; there are 32, 64, 128"),
        (put(*WEIGHTS, "granularity", value="per_channel"), "group_size is for .*per_channel"),
        (put("layers", "blocks.0.fc", "input", value=None), "a static layer needs"),
        (put("layers", "head", "mode", value="static"), "a static layer needs"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    edit: Callable[[Any], None], why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"{SPECIFICATION_FILE}: .*{why}") as caught:
        ComponentSpec.load(edited(tmp_path, edit))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version_is_refused(version: object, tmp_path: Path) -> None:
    folder = edited(tmp_path, put("schema_version", value=version))
    with pytest.raises(DataError, match=f"is of version {version}, and 1 is known here"):
        ComponentSpec.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"schema_version": 1}'])
def test_what_is_no_specification_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / SPECIFICATION_FILE).write_text(text)
    with pytest.raises(DataError, match=SPECIFICATION_FILE):
        ComponentSpec.load(tmp_path)


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ComponentSpec.load(tmp_path)
    (tmp_path / SPECIFICATION_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        ComponentSpec.load(tmp_path)
