"""Tokenizers of folders without a tokenizer.json: ids are those of whoever wrote their files."""

from __future__ import annotations

import io
import json
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import BertTokenizer, CLIPTokenizer

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.folders.tokenizer import read_tokenizer
from pocketvl_runtime.text import Tokenizer as RuntimeTokenizer
from tests.families.tiny import BOS, EOS, make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip

TEXTS = (
    "a photo of a cat",
    "  two   spaces,\ttabs and\nnew lines ",
    "UPPER Case, it's we're I'll don't",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \ufb01ne \uff21\uff22",
    "1234567890 3.14 12,000 $5 !? ... (a) [b] {c} <d> #e @f",
    "\u732b\u3068\u72ac \u043a\u043e\u0442 \u0642\u0637 \u0e41\u0e21\u0e27",
    "\U0001f600 \U0001f468\u200d\U0001f469 \u2764\ufe0f zero\u200bwidth\u00a0space\u00ad",
    "longwordwithoutanyspaceinit" * 3,
)


def spiece(*, byte_fallback: bool, kind: str = "unigram", start: bool = False) -> bytes:
    """A small SentencePiece model."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in TEXTS] * 20),
        model_writer=written,
        vocab_size=380 if byte_fallback else 140,
        model_type=kind,
        byte_fallback=byte_fallback,
        pad_id=-1,
        bos_id=1 if start else -1,
        eos_id=2 if start else 1,
        unk_id=0 if start else 2,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


def siglip(folder: Path, model: bytes, *, config: bool = True) -> Path:
    make_tiny_siglip(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes(model)
    if config:
        stored = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 16}
        (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    return folder


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("config", [True, False])
def test_a_spiece_model_alone_gives_the_ids_of_sentencepiece(
    byte_fallback: bool, config: bool, tmp_path: Path
) -> None:
    model = spiece(byte_fallback=byte_fallback)
    contract = read_contract(siglip(tmp_path / "siglip", model, config=config))
    wanted = sentencepiece.SentencePieceProcessor(model_proto=model)
    found = RuntimeTokenizer(contract.tokenizer_json, contract.tokenizer).encode(list(TEXTS)).ids
    for text, ids in zip(TEXTS, found, strict=True):
        clean = text.lower().translate(str.maketrans("", "", string.punctuation))
        clean = " ".join(clean.split())  # what SigLIP's class does to a text first
        cut = [*wanted.encode(clean), 1][:16]
        if len(cut) == 16:
            cut[-1] = 1
        assert ids.tolist() == cut + [1] * (16 - len(cut)), text


def test_a_spiece_model_is_kept_where_a_checkpoint_is_saved(tmp_path: Path) -> None:
    folder = siglip(tmp_path / "siglip", spiece(byte_fallback=False))
    opened = open_checkpoint(folder)
    opened.save(tmp_path / "saved")
    assert open_checkpoint(tmp_path / "saved").space() == opened.space()


def test_a_spiece_model_that_is_none_or_of_another_kind_is_one_line(tmp_path: Path) -> None:
    for name, model in (
        ("text", b"nope"),
        ("empty", b""),
        ("bpe", spiece(byte_fallback=False, kind="bpe")),
    ):
        folder = siglip(tmp_path / name, model)
        with pytest.raises(SourceError) as caught:
            read_contract(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "tokenizer_class", "shifted"),
    [
        ("sentencepiece.bpe.model", "XLMRobertaTokenizer", True),
        ("sentencepiece.bpe.model", None, True),
        ("spiece.model", "T5Tokenizer", False),
    ],
)
def test_other_classes_give_the_ids_of_sentencepiece_too(
    file: str, tokenizer_class: str | None, shifted: bool, tmp_path: Path
) -> None:
    model = spiece(byte_fallback=False, start=shifted)
    (tmp_path / file).write_bytes(model)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if tokenizer_class is not None:
        config = {"tokenizer_class": tokenizer_class}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found, processor = read_tokenizer(tmp_path), sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        ids = processor.encode(text)
        unknown = processor.unk_id()
        # XLM-RoBERTa's ids are one higher, for fairseq had a padding token of its own
        wanted = [0, *(3 if each == unknown else each + 1 for each in ids), 2] if shifted else [*ids, 1]
        assert found.tokenizer.encode(text).ids == wanted, text


def test_a_class_that_passes_over_the_spiece_model_is_told(tmp_path: Path) -> None:
    folder = siglip(tmp_path / "siglip", spiece(byte_fallback=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer"}))
    with pytest.raises(SourceError, match=r"GemmaTokenizer does not read spiece.model"):
        read_contract(folder)


def clip_files(folder: Path) -> Path:
    """CLIP's vocab.json and merges.txt, trained on a few words, in place of a tokenizer.json."""
    make_tiny_clip(folder)
    trained = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = sorted(ByteLevel.alphabet())
    ends = [letter + "</w>" for letter in alphabet]
    trainer = BpeTrainer(
        vocab_size=620,
        initial_alphabet=alphabet,
        special_tokens=[],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(["a photo of a cat", "a small red circle"] * 5, trainer)
    stored = json.loads(trained.to_str())["model"]
    names = [*alphabet, *ends]
    names += [name for name in stored["vocab"] if name not in set(names)]
    vocab = {name: index for index, name in enumerate([*names, BOS, EOS])}
    merges = [" ".join(each) if isinstance(each, list) else each for each in stored["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{each}\n" for each in merges))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(vocab_size=len(vocab), eos_token_id=vocab[EOS], bos_token_id=vocab[BOS])
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    table = "text_model.embeddings.token_embedding.weight"
    weights[table] = weights[table][:1].repeat(len(vocab), 1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("config", [None, {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}])
def test_clips_vocabulary_and_merges_give_transformers_ids(
    config: dict[str, object] | None, tmp_path: Path
) -> None:
    folder = clip_files(tmp_path / "clip")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    contract = open_checkpoint(folder).contract
    found = RuntimeTokenizer(contract.tokenizer_json, contract.tokenizer).encode(list(TEXTS)).ids
    theirs = CLIPTokenizer.from_pretrained(folder)
    wanted = theirs(list(TEXTS), padding="max_length", max_length=16, truncation=True, return_tensors="np")
    np.testing.assert_array_equal(found, wanted["input_ids"])


@pytest.mark.parametrize("lower", [True, False])
def test_berts_vocabulary_gives_transformers_ids(lower: bool, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "Case", "case", "two"]
    words += [*string.ascii_lowercase[1:], *(f"##{letter}" for letter in string.ascii_lowercase), "##s", ","]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in dict.fromkeys(words)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_tokenizer(tmp_path)
    theirs = BertTokenizer.from_pretrained(tmp_path)
    assert [found.tokenizer.encode(text).ids for text in TEXTS] == [
        theirs(text)["input_ids"] for text in TEXTS
    ]
    assert (found.pad_id, found.eos_id) == (0, 3)
    ids = [found.tokenizer.encode(text).ids for text in ("Case", "case")]
    assert (ids[0] == ids[1]) is lower


def damage(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda at: (at / "merges.txt").unlink(), "has no tokenizer: .* it has vocab.json alone"),
        (lambda at: (at / "vocab.json").unlink(), "has no tokenizer: .* it has merges.txt alone"),
        (damage("vocab.json", "{"), "cannot read its tokenizer"),
        (damage("vocab.json", "{}"), "tokenizer"),
        (damage("merges.txt", "not a merge of two\n"), "tokenizer"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_line(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    folder = clip_files(tmp_path / "clip")
    spoil(folder)
    with pytest.raises(SourceError, match=says) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
