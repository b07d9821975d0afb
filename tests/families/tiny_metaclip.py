"""A tiny seeded MetaClip2Model folder, with a SentencePiece (Unigram) tokenizer as XLM-V's."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import Unigram
from transformers import MetaClip2Config, MetaClip2Model

from tests.families.drawn import MEAN, STD, draw_, write_json

IMAGE_SIZE, PATCH_SIZE, TEXT_LENGTH = 32, 8, 16
EMBEDDING_DIM = 24
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_CORPUS = [
    "a photo of a red circle left of a small blue square",
    "a large striped green triangle above a dotted yellow star",
    "a picture of two cats, a dog and one car on the street",
    "what colour is the thing below the white cross?",
    "街上有两只猫、一只狗和一辆车",
    "синий круг слева от красного квадрата",
]


def unigram_tokenizer(vocabulary: int = 200) -> Tokenizer:
    """<s> text </s>, with XLM-R's first ids, in which </s> is 2."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def make_tiny_metaclip(folder: Path, seed: int = 0, *, outlier: float = 8.0) -> Path:
    """Writes a whole folder: 32 x 32 pictures, two layers of 32, T = 16, texts pooled at </s>, id 2.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        outlier: what one channel of each of the layers' LayerNorms is multiplied by.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = unigram_tokenizer()
    shared = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": EMBEDDING_DIM,
    }
    text = {
        **shared,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {**shared, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
    model = MetaClip2Model(
        MetaClip2Config(text_config=text, vision_config=vision, projection_dim=EMBEDDING_DIM)
    )
    draw_(model, seed, outlier)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": TEXT_LENGTH}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    config |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    write_json(folder / "tokenizer_config.json", config)
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": IMAGE_SIZE},
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3,
        "image_mean": MEAN,
        "image_std": STD,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    return folder
