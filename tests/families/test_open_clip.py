"""open_clip's models beside open_clip itself: configurations, saving, weights, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pocketvl.compress.methods.drop_layers import drop_layers_
from pocketvl.errors import SourceError
from pocketvl.families import check_checkpoint, open_checkpoint, read_contract
from pocketvl.families.base import Contract
from pocketvl.families.folders.hf import update_section_
from pocketvl.families.folders.weights import check_weight_files, read_scalar
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.network.heads import ContrastiveHead
from pocketvl_runtime.manifest import Activation
from tests.families.cases import CASES, Outputs
from tests.families.edits import set_in
from tests.families.tiny_open_clip import (
    CONVNEXT,
    VIT,
    changed,
    make_tiny_open_clip,
    open_clip_model,
    pickled,
)

pytest.importorskip("open_clip", reason="open_clip is not installed: pocketvl[open-clip]")
(REFERENCE,) = {case.reference for case in CASES if case.family == "open-clip"}
_FILE = "open_clip_config.json"


def inputs_of(contract: Contract, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    shape = (6, contract.preprocess.height, contract.preprocess.width, 3)
    ids = random.integers(0, 49406, (6, contract.tokenizer.max_length)).astype(np.int32)
    ids[:, 0] = 49406
    for row, end in enumerate(random.integers(2, contract.tokenizer.max_length, 6)):
        ids[row, end] = 49407
        ids[row, end + 1 :] = 0
    ids[-1, 5] = 49407  # an end of text within a text
    return {"pixels": random.integers(0, 256, shape, dtype=np.uint8), "ids": ids}


def outputs_of(folder: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Outputs:
    with torch.no_grad():
        return {
            f"{name}.embedding": each.module(torch.from_numpy(inputs[each.inputs[0].name])).numpy()
            for name, each in open_checkpoint(folder).components.items()
        }


def assert_equal(found: Outputs, wanted: Outputs) -> None:
    assert set(found) == set(wanted)
    for name, rows in wanted.items():
        np.testing.assert_allclose(found[name], rows, atol=2e-5)


VARIANTS = {
    "quick_gelu": changed(VIT, quick_gelu=True),
    "another epsilon and activation": changed(
        VIT,
        vision__norm_kwargs={"eps": 1e-3},
        text__norm_kwargs={"eps": 1e-4},
        vision__act_kwargs={"approximate": "tanh"},
        text__act_kwargs={"approximate": "tanh"},
    ),
    "patches are pooled": changed(VIT, vision__pool_type="avg"),
    "pooled patches are normalised": changed(
        VIT, vision__pool_type="avg", vision__final_ln_after_pool=True, vision__no_ln_pre=True
    ),
    "layer scales": changed(VIT, vision__ls_init_value=1e-4, text__ls_init_value=1e-4),
    "both ways, the last token, a bias": changed(
        VIT, custom_text=True, text__no_causal_mask=True, text__pool_type="last", text__proj_bias=True
    ),
    "the first end of a text": changed(VIT, custom_text=True, text__pool_type="eos", text__eos_id=49407),
    "the first token, no projection": changed(
        VIT, custom_text=True, text__no_causal_mask=True, text__pool_type="first", text__proj_type="none"
    )
    | {"embed_dim": 32},
    "a sigmoid": changed(VIT, init_logit_bias=-10, nonscalar_logit_scale=True, custom_text=True),
    "pictures of 36 x 36 in patches of 12": changed(VIT, vision__image_size=[36, 36], vision__patch_size=12),
    "convolutions of 1 x 1": changed(CONVNEXT, vision__timm_model_name="convnext_atto"),
    "a projection of two layers": changed(CONVNEXT, vision__timm_proj="mlp", vision__timm_proj_bias=True),
    "timm's own projection": changed(CONVNEXT, vision__timm_proj=None, vision__timm_pool="avg"),
    "features without a projection": changed(CONVNEXT, vision__timm_proj="none", vision__timm_pool="avg")
    | {"embed_dim": 64},
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_model_of_any_configuration_gives_what_open_clip_gives_and_goes_back(
    kind: str, tmp_path: Path
) -> None:
    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=VARIANTS[kind])
    contract = read_contract(folder)
    check_checkpoint(folder)
    inputs = inputs_of(contract)
    wanted = REFERENCE(folder, contract, inputs)
    assert_equal(outputs_of(folder, inputs), wanted)
    opened = open_checkpoint(folder)
    for component in opened.components.values():  # as it is folded for export
        if isinstance(component.module, PoolsOnePosition):
            component.module.pool_early_()
        with torch.no_grad():
            (row,) = (torch.from_numpy(inputs[port.name]) for port in component.inputs)
            found = component.module(row).numpy()
        np.testing.assert_allclose(found, wanted[f"{component.name}.embedding"], atol=2e-5)
    open_checkpoint(folder).save(tmp_path / "saved")
    assert_equal(REFERENCE(tmp_path / "saved", contract, inputs), wanted)
    before, after = (load_file(each / "open_clip_model.safetensors") for each in (folder, tmp_path / "saved"))
    assert {name: value.shape for name, value in before.items()} == {
        name: value.shape for name, value in after.items()
    }


def test_a_checkpoint_of_fewer_layers_opens_in_open_clip(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model")
    opened = open_checkpoint(folder)
    for stack in opened.stacks.values():
        drop_layers_(opened.model, stack.name, [1])
        section, key = stack.config
        update_section_(opened.config, section, {key: 1})
    opened.save(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / _FILE).read_text())["model_cfg"]
    assert stored["vision_cfg"]["layers"] == stored["text_cfg"]["layers"] == 1
    inputs = inputs_of(opened.contract)
    found = outputs_of(tmp_path / "saved", inputs)
    assert_equal(found, REFERENCE(tmp_path / "saved", opened.contract, inputs))


def test_a_model_with_a_bias_is_compared_by_a_sigmoid(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=VARIANTS["a sigmoid"])
    head = read_contract(folder).head
    assert isinstance(head, ContrastiveHead)
    assert head.activation is Activation.SIGMOID
    assert head.bias is not None
    assert read_scalar(folder, head.bias) == -3.0
    assert read_scalar(folder, head.scale) == pytest.approx(np.exp(2.5))


@pytest.mark.parametrize(
    ("name", "training"), [("open_clip_pytorch_model.bin", False), ("epoch_3.pt", True), ("own.pth", False)]
)
def test_pickled_weights_are_read_and_a_note_says_so(name: str, training: bool, tmp_path: Path) -> None:
    plain = make_tiny_open_clip(tmp_path / "plain")
    folder = pickled(make_tiny_open_clip(tmp_path / "pickled"), name, training=training)
    check_weight_files(folder)
    check_checkpoint(folder)
    opened = open_checkpoint(folder)
    assert opened.space() == open_checkpoint(plain).space()
    assert any(note.startswith(f"{name} is a pickle") for note in opened.contract.notes)
    head = opened.contract.contrastive_head
    assert read_scalar(folder, head.scale) == pytest.approx(np.exp(2.5))


def test_half_precision_is_kept_where_it_is_saved(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model", dtype=torch.float16)
    opened = open_checkpoint(folder)
    assert "weights are stored in float16, and computed with in float32" in opened.contract.notes
    opened.save(tmp_path / "saved")
    before, after = (load_file(each / "open_clip_model.safetensors") for each in (folder, tmp_path / "saved"))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_of_several_files_of_weights_none_is_guessed(tmp_path: Path) -> None:
    folder = pickled(make_tiny_open_clip(tmp_path / "model"), "epoch_1.pt")
    (folder / "epoch_2.pt").write_bytes((folder / "epoch_1.pt").read_bytes())
    with pytest.raises(SourceError, match=r"it has epoch_1\.pt, epoch_2\.pt: rename the one that is meant"):
        open_checkpoint(folder)


def test_transformers_own_model_counts_where_both_are_in_a_folder(tmp_path: Path) -> None:
    folder = make_tiny_open_clip(tmp_path / "model")
    (folder / "config.json").write_text('{"architecture": "vit_tiny", "num_classes": 0}')  # timm's
    assert read_contract(folder).family == "open-clip"
    (folder / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(SourceError, match="tokenizer"):  # of transformers' files there are none
        read_contract(folder)


MODEL = ("open_clip_config.json", "model_cfg")
VISION, TEXT = (*MODEL, "vision_cfg"), (*MODEL, "text_cfg")
REFUSED = {
    "a ResNet": (set_in(*VISION, "layers", to=[3, 4, 6, 3]), "its image tower is a ResNet; supported are"),
    "a CoCa": (set_in(*MODEL, "multimodal_cfg", to={"width": 64}), "a CoCa"),
    "a text tower of transformers": (
        set_in(*TEXT, "hf_model_name", to="roberta-base"),
        "'roberta-base'; supp",
    ),
    "attentional pooling": (set_in(*VISION, "attentional_pool", to=True), "attentional_pool is on; supp"),
    "an EVA": (set_in(*VISION, "timm_model_name", to="eva02_tiny_patch14_224"), "of kind Eva; supported are"),
    "no model of timm": (set_in(*VISION, "timm_model_name", to="convnext_giant"), "timm does not build"),
    "a model of the hub": (set_in(*VISION, "timm_model_name", to="hf-hub:timm/vit"), "timm does not build"),
    "a stem that overlaps": (
        set_in(*VISION, "timm_model_name", to="convnext_atto_ols"),
        "is another network",
    ),
    "response normalisation": (
        set_in(*VISION, "timm_model_name", to="convnextv2_atto"),
        "other norms than",
    ),
    "other norms": (set_in(*VISION, "timm_model_name", to="convnext_atto_rms"), "other norms than"),
    "normalised queries": (
        set_in(*TEXT, "qk_norm", to=True),
        "text_cfg.qk_norm is True: Input should be False",
    ),
    "a key that nobody knows": (set_in(*TEXT, "rotary", to=True), "text_cfg.rotary"),
    "another pooling": (set_in(*TEXT, "pool_type", to="mean"), "text_cfg.pool_type is 'mean'"),
    "a width that is text": (set_in(*TEXT, "width", to="wide"), "text_cfg.width is 'wide'"),
    "a width below one": (set_in(*VISION, "width", to=0), "vision_cfg.width is 0"),
    "heads that do not divide": (set_in(*VISION, "head_width", to=15), "heads of 15 do not divide"),
    "heads of texts": (set_in(*TEXT, "heads", to=5), "5 heads do not divide"),
    "no square": (set_in(*VISION, "image_size", to=[32, 48]), "only square pictures"),
    "no embedding": (set_in(*MODEL, "embed_dim", to=None), "embed_dim is None"),
    "no model": (set_in(*MODEL, to=3), "has no model_cfg"),
    "a thousand layers": (
        set_in(*TEXT, "layers", to=10**6),
        "and the weights are .* describes another model",
    ),
    "another width": (set_in(*VISION, "width", to=48), "open_clip_config.json asks for"),
    "fewer tokens": (
        set_in(*TEXT, "vocab_size", to=100),
        "ids up to 49407, but open_clip_config.json's voca",
    ),
    "layer scales that are not there": (
        set_in(*TEXT, "ls_init_value", to=0.1),
        "lack text.layers.0.mlp.fc2.w",
    ),
    "longest": (set_in(_FILE, "preprocess_cfg", "resize_mode", to="longest"), "resize_mode is 'longest'"),
    "nearest": (set_in(_FILE, "preprocess_cfg", "interpolation", to="nearest"), "interpolation is 'nearest'"),
    "two means": (set_in(_FILE, "preprocess_cfg", "mean", to=[0.5, 0.5]), "preprocess_cfg.mean"),
    "a std of zero": (set_in(_FILE, "preprocess_cfg", "std", to=[0.5, 0.0, 0.5]), "preprocess_cfg.std"),
    "a tokenizer elsewhere": (
        set_in(*TEXT, "hf_tokenizer_name", to="bert-base-uncased"),
        "whose files are not",
    ),
    "another cleaning": (
        set_in(*TEXT, "tokenizer_kwargs", to={"clean": "canonicalize"}),
        "clean is 'canonic",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_supported_or_wrong_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    edit, says = REFUSED[kind]
    folder = make_tiny_open_clip(tmp_path / "model")
    edit(folder)
    with pytest.raises(SourceError, match=says) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"timm_pool": "abs_attn"}, "only the mean, avg, is supported"),
        ({"timm_pool": "", "timm_proj": None}, "only the mean, avg, is supported"),
        ({"timm_pool": "avg", "timm_proj": "none"}, "without a projection gives 64 numbers"),
    ],
)
def test_poolings_of_a_convnext_that_are_not_supported(
    values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=CONVNEXT)
    stored = json.loads((folder / _FILE).read_text())
    stored["model_cfg"]["vision_cfg"].update(values)
    (folder / _FILE).write_text(json.dumps(stored))
    with pytest.raises(SourceError, match=says):
        read_contract(folder)


def test_without_timm_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketvl.families.towers import timm as towers

    folder = make_tiny_open_clip(tmp_path / "model", model_cfg=CONVNEXT)
    towers._trunk.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SourceError, match=r'which is not installed: pip install "pocketvl\[open-clip\]"'):
        read_contract(folder)


CONVNEXTS = ("convnext_base_w", "convnext_large_d", "convnext_tiny", "convnext_xxlarge")
OTHERS_OF_TIMM = ("EVA02-B-16", "ViT-B-16-SigLIP", "PE-Core-T-16-384", "swin_base_patch4_window7_224")


def test_open_clips_own_configurations_are_supported_or_refused_in_a_line() -> None:
    import open_clip

    from pocketvl.families.open_clip import ARCHITECTURE

    supported = set()
    for name in open_clip.list_models():
        stored = open_clip.get_model_config(name)
        if "timm_model_name" in stored["vision_cfg"] and name not in (*CONVNEXTS, *OTHERS_OF_TIMM):
            continue  # building all of them takes timm a minute
        try:
            ARCHITECTURE.parse({"model_cfg": stored}, Path("folder"))
        except SourceError as error:
            assert "; supported are open_clip's ViT and timm's ConvNeXt" in str(error), name
        else:
            supported.add(name)
    assert {"ViT-B-32", "ViT-L-14-336", "ViT-bigG-14", "ViT-M-16-alt", *CONVNEXTS} <= supported
    assert not {"RN50", "coca_ViT-B-32", "roberta-ViT-B-32", *OTHERS_OF_TIMM} & supported


def test_open_clips_real_models_have_the_shapes_of_ours() -> None:
    """Of every kind a published one, on the meta device: no weight takes memory."""
    import open_clip

    from pocketvl.families.open_clip import ARCHITECTURE

    for name in (
        "ViT-B-32",
        "ViT-M-16-alt",
        "ViT-L-14-CLIPA",
        "convnext_base",
        "convnext_large_d",
        "convnext_xxlarge",
    ):
        stored = open_clip.get_model_config(name)
        config = ARCHITECTURE.parse({"model_cfg": stored}, Path("folder"))
        with torch.device("meta"):
            theirs = dict(open_clip_model(stored).state_dict())
            ours = ARCHITECTURE.build(config, Path("folder")).state_dict()
        ARCHITECTURE.unpack_(theirs, config)
        assert {key: value.shape for key, value in theirs.items()} == {
            key: value.shape for key, value in ours.items()
        }, name
