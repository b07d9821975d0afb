"""MetaCLIP 2's own: id 2 ends texts and says nothing of old CLIPs, ids are transformers', what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, MetaClip2Model

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.folders import tokenizer
from pocketvl_runtime.text import Tokenizer
from tests.families.edits import Edit, set_in
from tests.families.tiny_metaclip import make_tiny_metaclip

TEXTS = ["a photo of a cat", "街上有两只猫", "синий круг слева", "a", "a </s> b", "red blue " * 20]


def test_texts_are_embedded_as_by_transformers_own_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny_metaclip(tmp_path / "tiny", outlier=20.0)
    checkpoint = open_checkpoint(folder)
    read = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", truncation=True, return_tensors="pt"
    )
    ids = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer).encode(TEXTS).ids
    assert (read["input_ids"].numpy() == ids).all()
    with torch.no_grad():
        model = MetaClip2Model.from_pretrained(folder).train(False)
        wanted = F.normalize(model.get_text_features(**read).pooler_output, dim=-1)
        found = checkpoint.component("text_encoder").module(torch.from_numpy(ids))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_a_tokenizer_too_large_for_devices_loses_its_white_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary as large as XLM-V's (901,629 tokens) is 62 MB as saved, 33 MB without white space."""
    folder = make_tiny_metaclip(tmp_path / "tiny")
    before = (folder / "tokenizer.json").read_bytes()
    monkeypatch.setattr(tokenizer, "MAX_TOKENIZER_BYTES", len(before) - 1)
    contract = read_contract(folder)
    assert len(contract.tokenizer_json) < 0.7 * len(before)
    assert json.loads(contract.tokenizer_json) == json.loads(before)
    wanted = Tokenizer(before, contract.tokenizer).encode(TEXTS).ids
    assert (Tokenizer(contract.tokenizer_json, contract.tokenizer).encode(TEXTS).ids == wanted).all()


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (set_in("config.json", "text_config", "eos_token_id", to=5), "pools at eos_token_id 5"),
        (set_in("config.json", "text_config", "vocab_size", to=50), "vocab_size is 50"),
        (set_in("tokenizer_config.json", "padding_side", to="left"), "at the left"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, edit: Edit, complaint: str) -> None:
    folder = make_tiny_metaclip(tmp_path / "tiny")
    edit(folder)
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
