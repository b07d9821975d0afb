"""The models that are compared, the data they are shown, and their graphs in float.

A model is its published configuration with random weights and planted outlier channels, since no hub can be
reached. Everybody quantizes the same float network: pocketvl from the checkpoint folder, each peer from what
the converter of its own format makes of the very same modules, nothing of pocketvl's quantization in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPModel

from bench.clip_b32 import randomize_
from bench.peers.contenders import TOWERS
from bench.peers.record import MODEL_FILE, ModelRecord
from bench.results.record import read_record, write_record
from bench.siglip2_base import siglip
from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.tabletop.folder import make_sample
from pocketvl.tasks.encoding import Encoder
from pocketvl_runtime.image import open_image

SAMPLES = 150
_SEED = {"calibration": 1, "judged": 2}
_TABLETOP = Path("checkpoints/tabletop-clip")
_PAD, _BOS, _EOS = 0, 2, 3
_CROP = 0.7
_SIDE = 224


@dataclass(frozen=True)
class Model:
    """A model to compare.

    Attributes:
        name: of its folder.
        described: in words, for the page.
        build: makes transformers' model, given the number of tokens.
        vocabulary: how many tokens the published configuration has.
        text_length: of a text in tokens.
        processor: what preprocessor_config.json says.
        captions: how many a text is made of. SigLIP reads padding like words and pools the last position:
            with random weights, texts of one caption, four fifths of them padding, would differ by a 25th of
            what they have in common, and any rounding hide that.
    """

    name: str
    described: str
    build: Callable[[int], nn.Module]
    vocabulary: int
    text_length: int
    processor: dict[str, Any]
    captions: int = 1


def _clip(outliers: bool, shape: dict[str, int], vocabulary: int) -> nn.Module:
    """CLIP; `shape`: what both towers' configurations have that is not ViT-B/32's."""
    torch.manual_seed(0)
    text = {"pad_token_id": _PAD, "bos_token_id": _BOS, "eos_token_id": _EOS, "vocab_size": vocabulary}
    config = CLIPConfig(text_config={**text, **shape}, vision_config=shape)
    model: CLIPModel = CLIPModel._from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="eager", dtype=torch.float32
    )
    randomize_(model, 0, outliers)
    return model


_CLIP_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": _SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": _SIDE, "width": _SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
_SIGLIP_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": _SIDE, "width": _SIDE},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
}
_OUTLIERS = "random weights, eight channels of every LayerNorm 20 times as large as the others"
_SMALL = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    each.name: each
    for each in (
        Model(
            "clip-b32",
            f"CLIP ViT-B/32, {_OUTLIERS}",
            partial(_clip, True, {}),
            49_408,
            77,
            _CLIP_PROCESSOR,
        ),
        Model(
            "clip-b32-plain",
            "CLIP ViT-B/32, random weights, no outliers",
            partial(_clip, False, {}),
            49_408,
            77,
            _CLIP_PROCESSOR,
        ),
        Model(
            "siglip2-base", f"SigLIP 2 base, {_OUTLIERS}", siglip, 256_000, 64, _SIGLIP_PROCESSOR, captions=5
        ),
        Model(
            "clip-small",
            f"A CLIP of two layers of 128, to rehearse with, {_OUTLIERS}",
            partial(_clip, True, _SMALL),
            1_000,
            77,
            _CLIP_PROCESSOR,
        ),
    )
}


def prepare(model: Model, folder: Path, photos: Path, vocabulary: int | None = None) -> None:
    """Write a model's checkpoint, data, reference outputs and float graphs; what is there stays.

    Args:
        model: which.
        folder: where; holds checkpoint/, calibration/, judged/, inputs/, reference/ and float/ afterwards.
        photos: a dataset folder whose pictures are taken; where there is none, tabletop scenes are.
        vocabulary: fewer tokens than the published configuration has, for a machine of little memory.
    """
    if read_record(ModelRecord, folder / MODEL_FILE) is not None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokens = vocabulary or model.vocabulary
    pictures = pictures_of(photos)
    _write_checkpoint(model, tokens, folder / "checkpoint")
    for name, seed in _SEED.items():
        write_shown(folder / name, seed, pictures, captions=model.captions)
    checkpoint = open_checkpoint(folder / "checkpoint")
    for name in ("inputs", "reference", "float"):
        (folder / name).mkdir()
    _write_inputs(checkpoint, folder)
    for tower, component in TOWERS.items():
        _write_graphs(checkpoint.component(component).module, tower, folder)
    of = "photographs" if pictures else "tabletop scenes"
    write_record(folder / MODEL_FILE, ModelRecord(model.name, model.described, SAMPLES, of, tokens))


def pictures_of(photos: Path) -> tuple[Path, ...]:
    """The first pictures of a dataset folder; none where it is missing or has too few."""
    if not (photos / "samples.jsonl").exists():
        return ()
    found = tuple(sample.image for sample in Dataset.open(photos).samples[:SAMPLES])
    return found if len(found) == SAMPLES else ()


def _write_checkpoint(model: Model, vocabulary: int, folder: Path) -> None:
    """A folder as `save_pretrained` writes it, with the demo model's tokenizer."""
    built = model.build(vocabulary)
    built.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(model.processor), encoding="utf-8")
    write_tokenizer(folder, model.text_length)


def write_tokenizer(folder: Path, length: int) -> None:
    """The demo model's tokenizer, for the first rows of a table, with texts of so many tokens."""
    shutil.copy(_TABLETOP / "tokenizer.json", folder)
    config = json.loads((_TABLETOP / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["model_max_length"] = length
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_shown(
    folder: Path, seed: int, pictures: tuple[Path, ...], samples: int = SAMPLES, captions: int = 1
) -> None:
    """Pictures and a text of their own; calibration sees of each photograph a mirrored part alone."""
    (folder / "images").mkdir(parents=True)
    rows = []
    scenes = _scenes(seed)
    for index in range(samples):
        shown = list(islice(scenes, captions))
        content, text = shown[0][0], ", ".join(caption for _, caption in shown)
        name = f"images/{index:04d}.png"
        image = open_image(pictures[index] if pictures else content)
        if pictures and seed == _SEED["calibration"]:
            image = _mirrored_part(image, np.random.default_rng([seed, index]))
        image.save(folder / name)
        rows.append({"image": name, "captions": [text]})
    write_samples(folder, rows)


def _scenes(seed: int) -> Iterator[tuple[bytes, str]]:
    """Scenes of which no two have the same caption: JPEG and caption."""
    told = set[str]()
    for index in count():
        content, row = make_sample(seed, index, _SIDE)
        caption = row["captions"][0]
        if caption not in told:
            told.add(caption)
            yield content, caption


def _mirrored_part(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    """A random rectangle of 0.7 of both sides, mirrored."""
    width, height = (max(1, round(_CROP * side)) for side in image.size)
    left, top = chance.integers(0, image.width - width + 1), chance.integers(0, image.height - height + 1)
    part = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _write_inputs(checkpoint: Checkpoint, folder: Path) -> None:
    """uint8 [N, H, W, 3] and int32 [N, T] as on the device, and torch's outputs float32 [N, D]."""
    encoder = Encoder.of_contract(checkpoint.contract)
    for part in _SEED:
        samples = Dataset.open(folder / part).samples
        feeds = {
            "image": encoder.feed(TOWERS["image"], media=[sample.image for sample in samples]),
            "text": encoder.feed(TOWERS["text"], texts=[sample.captions[0] for sample in samples]),
        }
        for tower, feed in feeds.items():
            (rows,) = feed.read(0, feed.rows).values()
            np.save(folder / "inputs" / f"{tower}-{part}.npy", rows)
            if part == "judged":
                module = checkpoint.component(TOWERS[tower]).module
                np.save(folder / "reference" / f"{tower}.npy", _outputs(module, rows))


def _outputs(module: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
    module.eval()
    with torch.inference_mode():
        parts = [module(torch.from_numpy(rows[start : start + 10])) for start in range(0, len(rows), 10)]
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _write_graphs(module: nn.Module, tower: str, folder: Path) -> None:
    """The tower in float, as ONNX, TFLite and torch.export write it."""
    rows = np.load(folder / "inputs" / f"{tower}-calibration.npy", mmap_mode="r")
    examples = {"pixels" if tower == "image" else "ids": torch.from_numpy(np.array(rows[:1]))}
    module.eval().requires_grad_(False)
    export_onnx(module, examples, folder / "float" / f"{tower}.onnx")
    export_tflite(module, examples, folder / "float" / f"{tower}.tflite")
    program = torch.export.export(module, tuple(examples.values()))
    torch.export.save(program, folder / "float" / f"{tower}.pt2")
