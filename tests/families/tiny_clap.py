"""A tiny seeded ClapModel folder, with a byte-level BPE as RoBERTa's, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from tests.families.drawn import draw_, write_json

RATE, HOP, MELS, SPEC_SIZE = 8_000, 64, 8, 32
TEXT_LENGTH, EMBEDDING_DIM = 16, 24
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_CORPUS = [
    "the sound of a dog that barks",
    "a high tone, then a low one",
    "noise and two clicks",
    "a photo of a red circle left of a small blue square",
    "what colour is the thing above two cats and one dog?",
]


def roberta_tokenizer(vocabulary: int = 320) -> Tokenizer:
    """<s> text </s>, byte by byte, with RoBERTa's first ids."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def save_roberta(folder: Path, limit: int | None) -> None:
    """The tokenizer's files, for a limit of tokens by tokenizer_config.json; None where it says nothing."""
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    named = {
        "tokenizer_class": "RobertaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
    }
    named |= {"sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    write_json(
        folder / "tokenizer_config.json", named if limit is None else {**named, "model_max_length": limit}
    )


def make_tiny_clap(
    folder: Path,
    seed: int = 2,
    *,
    outlier: float = 8.0,
    limit: int | None = TEXT_LENGTH,
    positions: int = TEXT_LENGTH,
    audio: dict[str, Any] | None = None,
) -> Path:
    """Writes a whole folder: sounds of a second, stages of two layers and of one, windows of 4 x 4, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        outlier: what one channel of each of the layers' LayerNorms is multiplied by.
        limit: of tokens, by tokenizer_config.json; None where it says nothing.
        positions: of texts, in the model.
        audio: keys of audio_config in place of these.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = {
        "vocab_size": roberta_tokenizer().get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": positions + 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    heard = {
        "spec_size": SPEC_SIZE,
        "num_mel_bins": MELS,
        "window_size": 4,
        "patch_embeds_hidden_size": 32,
        "hidden_size": 64,
        "depths": [2, 1],
        "num_attention_heads": [2, 4],
        "hidden_dropout_prob": 0.0,
    }
    config = ClapConfig(text_config=text, audio_config=heard | (audio or {}), projection_dim=EMBEDDING_DIM)
    model = ClapModel(config)
    draw_(model, seed, outlier)
    norm = model.audio_model.audio_encoder.batch_norm
    with torch.no_grad():
        norm.get_buffer("running_mean").copy_(torch.linspace(-40, -60, MELS))
        norm.get_buffer("running_var").copy_(torch.linspace(300, 500, MELS))
        model.logit_scale_t.fill_(2.0)  # unlike the other
    model.save_pretrained(folder)
    save_roberta(folder, limit)
    ClapFeatureExtractor(
        feature_size=MELS,
        sampling_rate=RATE,
        hop_length=HOP,
        max_length_s=1,
        fft_window_size=256,
        frequency_min=50,
        frequency_max=4_000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    return folder
