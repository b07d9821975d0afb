"""A tiny seeded ChineseCLIPModel folder, with a WordPiece tokenizer, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path

from transformers import ChineseCLIPConfig, ChineseCLIPModel

from tests.families.drawn import MEAN, STD, draw_, write_json
from tests.families.wordpiece import PAD_ID, save_wordpiece, wordpiece_tokenizer

IMAGE_SIZE, PATCH_SIZE, TEXT_LENGTH = 32, 8, 16
EMBEDDING_DIM, VOCABULARY = 24, 300


def make_tiny_chinese(
    folder: Path,
    seed: int = 0,
    *,
    positions: int = TEXT_LENGTH,
    limit: int | None = TEXT_LENGTH,
    outlier: float = 8.0,
) -> Path:
    """Writes a whole folder: 32 x 32 pictures, two layers of 32, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        positions: of texts, in the model.
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
    vision = {**shared, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "projection_dim": EMBEDDING_DIM}
    text = {
        **shared,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": positions,
        "pad_token_id": PAD_ID,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    model = ChineseCLIPModel(
        ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING_DIM)
    )
    draw_(model, seed, outlier)
    model.save_pretrained(folder)
    save_wordpiece(wordpiece_tokenizer(VOCABULARY), folder, limit)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    preprocessor = {
        "image_processor_type": "ChineseCLIPImageProcessor",
        "do_resize": True,
        "do_center_crop": False,
        "do_rescale": True,
        "do_normalize": True,
        "size": size,
        "crop_size": size,
        "resample": 3,
        "image_mean": MEAN,
        "image_std": STD,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    return folder
