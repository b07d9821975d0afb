"""A tiny seeded BlipForImageTextRetrieval folder, with a WordPiece tokenizer, as transformers writes it."""

from __future__ import annotations

from pathlib import Path

from transformers import BlipConfig, BlipForImageTextRetrieval

from tests.families.drawn import MEAN, STD, draw_, write_json
from tests.families.wordpiece import PAD_ID, save_wordpiece, wordpiece_tokenizer

IMAGE_SIZE, PATCH_SIZE, TEXT_LENGTH = 32, 8, 16
EMBEDDING_DIM, VOCABULARY = 24, 300


def make_tiny_blip(
    folder: Path, seed: int = 0, *, limit: int | None = TEXT_LENGTH, outlier: float = 8.0
) -> Path:
    """Writes a whole folder: 32 x 32 pictures, two layers of 32, T = 16 of 64 positions.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        limit: of tokens, by tokenizer_config.json; None where it says nothing.
        outlier: what one channel of each of the layers' LayerNorms is multiplied by.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {**shared, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
    text = {
        **shared,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "pad_token_id": PAD_ID,
        "encoder_hidden_size": 32,
    }
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=EMBEDDING_DIM)
    model = BlipForImageTextRetrieval(config)
    draw_(model, seed, outlier)
    model.save_pretrained(folder)
    save_wordpiece(wordpiece_tokenizer(VOCABULARY), folder, limit)
    preprocessor = {
        "image_processor_type": "BlipImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_pad": True,
        "size_divisor": 32,
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3,
        "image_mean": MEAN,
        "image_std": STD,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    return folder
