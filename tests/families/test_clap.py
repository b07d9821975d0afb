"""CLAP: sounds as transformers hears them, both temperatures, and what of its configuration is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.clap import ClapAudioEncoder, cubic_taps
from pocketvl.families.layers.windows import shifted_mask
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl_runtime.audio import Sound, load_features
from pocketvl_runtime.manifest import AudioPad, AudioProcessor, Modality
from tests.families.heard import write_heard
from tests.families.tiny_clap import HOP, MELS, RATE, make_tiny_clap
from tests.runtime.sounds import noise, tone

TEXTS = ["the sound of a dog", "noise and two clicks, then a high tone", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clap(tmp_path_factory.mktemp("clap") / "checkpoint")


def edited(folder: Path, name: str, edit: Callable[[Any], None]) -> Path:
    stored = json.loads((folder / name).read_text())
    edit(stored)
    (folder / name).write_text(json.dumps(stored))
    return folder


def test_from_sounds_and_texts_to_embeddings_and_logits_all_is_transformers_own(folder: Path) -> None:
    """Files in, by the runtime's processors and our forward; and by transformers' alone."""
    sounds = [tone(500.0, 0.4, RATE), noise(1.0, RATE), tone(90.0, 0.1, RATE)]
    opened = open_checkpoint(folder)
    encoder = Encoder.of_contract(opened.contract)
    assert isinstance(encoder.media, AudioProcessor)
    assert encoder.tokenizer is not None
    features = np.concatenate([load_features(Sound(each, RATE), encoder.media) for each in sounds])
    with torch.no_grad():
        heard = opened.component("audio_encoder").module(torch.from_numpy(features))
        read = opened.component("text_encoder").module(torch.from_numpy(encoder.tokenizer.encode(TEXTS).ids))
    model = ClapModel.from_pretrained(folder).train(False)
    shown = ClapFeatureExtractor.from_pretrained(folder)(sounds, sampling_rate=RATE, return_tensors="pt")
    texts = RobertaTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model(**texts, input_features=shown["input_features"])
    torch.testing.assert_close(heard, wanted.audio_embeds, atol=2e-5, rtol=0)
    torch.testing.assert_close(read, wanted.text_embeds, atol=2e-5, rtol=0)
    task = task_of(opened.contract, opened)
    first, second = (getattr(task, name) for name in ("scale", "second_scale"))
    torch.testing.assert_close(first * (heard @ read.T), wanted.logits_per_audio, atol=1e-3, rtol=0)
    torch.testing.assert_close(second * (read @ heard.T), wanted.logits_per_text, atol=1e-3, rtol=0)
    assert first != second


def test_a_batch_is_what_each_of_its_sounds_is(folder: Path) -> None:
    module = open_checkpoint(folder).component("audio_encoder").module
    features = torch.randn(3, 1, RATE // HOP + 1, MELS, generator=torch.Generator().manual_seed(0)) * 20 - 50
    with torch.no_grad():
        alone = torch.cat([module(each[None]) for each in features])
        torch.testing.assert_close(module(features), alone, atol=1e-5, rtol=0)


def test_training_leaves_the_statistics_of_its_mels_alone(folder: Path) -> None:
    opened = open_checkpoint(folder)
    module = opened.component("audio_encoder").module
    features = torch.randn(4, 1, RATE // HOP + 1, MELS, generator=torch.Generator().manual_seed(0)) * 20 - 50
    with torch.no_grad():
        before = module(features)
        module.train(True)
        module(features)
        module.train(False)
        torch.testing.assert_close(module(features), before)


@pytest.mark.parametrize(("count", "wanted"), [(126, 128), (1001, 1024), (7, 64)])
def test_stretching_in_time_is_torchs_bicubic_interpolation(count: int, wanted: int) -> None:
    rows = torch.randn(1, 1, count, 5, generator=torch.Generator().manual_seed(1))
    places, weights = cubic_taps(count, wanted)
    found = (rows[0, 0][torch.from_numpy(places).long()] * torch.from_numpy(weights)[..., None]).sum(1)
    exact = F.interpolate(rows, (wanted, 5), mode="bicubic", align_corners=True)[0, 0]
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (64, 8, 4)])
def test_masks_are_those_of_transformers_layers(folder: Path, side: int, window: int, shift: int) -> None:
    model = ClapModel.from_pretrained(folder)
    layer: Any = model.audio_model.audio_encoder.get_submodule("layers.0.blocks.1")
    layer.window_size, layer.shift_size = window, shift
    wanted = layer.get_attn_mask(side, side, torch.float32, "cpu")
    np.testing.assert_array_equal(shifted_mask((side, side), window, shift)[:, 0], wanted.numpy())


def test_a_spectrogram_that_fills_the_picture_is_not_stretched(tmp_path: Path) -> None:
    folder = make_tiny_clap(tmp_path / "c")

    def longer(stored: Any) -> None:
        stored["hop_length"] = 63  # 127 frames and one of 128
        stored["sampling_rate"] = 8_001

    contract = read_contract(edited(folder, "preprocessor_config.json", longer))
    assert contract.media.output.shape == (1, 1, 128, MELS)
    module = open_checkpoint(folder).component("audio_encoder").module
    assert isinstance(module, ClapAudioEncoder)
    assert not module.is_stretched
    features = torch.randn(2, 1, 128, MELS, generator=torch.Generator().manual_seed(0)) * 20 - 50
    model = ClapModel.from_pretrained(folder).train(False)
    with torch.no_grad():
        wanted = F.normalize(model.get_audio_features(input_features=features).pooler_output, dim=-1)
        torch.testing.assert_close(module(features), wanted, atol=2e-5, rtol=0)


def test_what_the_device_does_otherwise_is_noted(folder: Path) -> None:
    contract = read_contract(folder)
    assert contract.modality is Modality.AUDIO
    assert contract.notes == ("of sounds longer than 1 s, the first 1 s are taken, not a random part",)
    assert isinstance(contract.media, AudioProcessor)
    assert contract.media.pad is AudioPad.REPEAT


def test_texts_have_no_more_tokens_than_in_its_training(tmp_path: Path) -> None:
    contract = read_contract(make_tiny_clap(tmp_path / "c", positions=100, limit=None))
    assert contract.tokenizer.max_length == 77
    assert any("cut at 77 tokens" in note for note in contract.notes)


def test_a_combined_processor_file_counts(tmp_path: Path) -> None:
    folder = make_tiny_clap(tmp_path / "c")
    nested = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": {**nested, "padding": "pad"}})
    )
    contract = read_contract(folder)
    assert isinstance(contract.media, AudioProcessor)
    assert contract.media.pad is AudioPad.ZEROS


def _audio(**values: object) -> Callable[[Any], None]:
    return lambda stored: stored["audio_config"].update(values)


def _extractor(**values: object) -> Callable[[Any], None]:
    return lambda stored: stored.update(values)


CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
REFUSED: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "fusion": (CONFIG, _audio(enable_fusion=True), "enable_fusion is true; a model that fuses"),
    "windows": (CONFIG, _audio(window_size=3), "grid of 8 x 8, which windows of 3 do not fill"),
    "a huge grid": (
        CONFIG,
        _audio(spec_size=2**20),
        "grid of 262144 x 262144 tokens and windows of 4; at most",
    ),
    "strides": (CONFIG, _audio(patch_stride=[4, 2]), r"patch_stride is \[4, 2\]"),
    "mels": (CONFIG, _audio(num_mel_bins=12), "no multiple of num_mel_bins"),
    "width": (CONFIG, _audio(hidden_size=32), "hidden_size is 32, and the last of 2 stages gives 64"),
    "heads": (CONFIG, _audio(num_attention_heads=[2]), "not equally long"),
    "channels": (CONFIG, _audio(patch_embed_input_channels=2), "patch_embed_input_channels 2"),
    "truncation": (EXTRACTOR, _extractor(truncation="fusion"), "truncation is 'fusion'"),
    "padding": (EXTRACTOR, _extractor(padding="repeat"), "padding is 'repeat'; known are repeatpad, pad"),
    "top_db": (EXTRACTOR, _extractor(top_db=80), "top_db is 80; it is not supported"),
    "kind": (
        EXTRACTOR,
        _extractor(feature_extractor_type="WhisperFeatureExtractor"),
        "only ClapFeatureExtractor",
    ),
    "rate": (EXTRACTOR, _extractor(sampling_rate="fast"), "sampling_rate is 'fast', not a number"),
    "hop": (EXTRACTOR, _extractor(hop_length=0), "must be 1 to"),
    "pitches": (EXTRACTOR, _extractor(frequency_max=9_000), "mel filters from 50.0 to 9000.0 Hz at 8000 Hz"),
    "seconds": (
        EXTRACTOR,
        _extractor(max_length_s=2),
        "spectrograms are 251 x 8, and config.json asks for 8 mels",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_known_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    name, edit, says = REFUSED[kind]
    folder = edited(make_tiny_clap(tmp_path / "c"), name, edit)
    with pytest.raises(SourceError, match=says) as caught:
        read_contract(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_shapes_of_other_sizes_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be reinitialised"):
        open_checkpoint(folder).reinitialize_({}, 0)


def test_heads_of_windows_are_not_pruned(folder: Path) -> None:
    with pytest.raises(RecipeError, match="the audio_encoder is no stack of transformer layers"):
        open_checkpoint(folder).stack("audio_encoder")


def test_a_saved_folder_opens_in_transformers(folder: Path, tmp_path: Path) -> None:
    open_checkpoint(folder).save(tmp_path / "saved")
    before, after = ClapModel.from_pretrained(folder), ClapModel.from_pretrained(tmp_path / "saved")
    assert before.state_dict().keys() == after.state_dict().keys()
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, atol=0, rtol=0)


def test_a_dataset_is_fed_as_files_are(folder: Path, tmp_path: Path) -> None:
    from pocketvl.data.dataset import Dataset

    dataset = Dataset.open(write_heard(tmp_path / "data", 3, 6, rate=11_025))
    opened = open_checkpoint(folder)
    encoder = Encoder.of_contract(opened.contract)
    first, second = task_of(opened.contract, opened).feeds(encoder, dataset)
    assert (first.component, first.rows, second.component) == ("audio_encoder", 6, "text_encoder")
    assert isinstance(encoder.media, AudioProcessor)
    alone = load_features(dataset.media(Modality.AUDIO)[4], encoder.media)
    np.testing.assert_array_equal(first.read(3, 6)["features"][1], alone[0])
