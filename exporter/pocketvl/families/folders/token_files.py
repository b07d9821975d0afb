"""Tokenizers of folders without a tokenizer.json: transformers' own classes read their files.

vocab.json with merges.txt is CLIP's, vocab.txt BERT's WordPiece, spiece.model and sentencepiece.bpe.model
are SentencePiece's. What comes out is compared with transformers' ids afterwards, as every tokenizer is;
those of SigLIP's class are the sentencepiece library's.

Source: transformers 5.23, `TokenizersBackend.convert_to_native_format` and `SpmConverter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, processors

from pocketvl.errors import SourceError
from pocketvl_runtime.errors import library_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILE = "tokenizer.json"
# which files make a tokenizer, and the class that reads them where no tokenizer_config.json names one
_CLASSES: Mapping[tuple[str, ...], str] = {
    ("vocab.json", "merges.txt"): "CLIPTokenizer",
    ("vocab.txt",): "BertTokenizer",
    ("spiece.model",): "SiglipTokenizer",
    ("sentencepiece.bpe.model",): "XLMRobertaTokenizer",
}


def default_class(folder: Path) -> str | None:
    """The tokenizer class of a folder that has files of a tokenizer and no tokenizer.json; else None."""
    if (folder / TOKENIZER_FILE).exists():
        return None
    return next(
        (name for files, name in _CLASSES.items() if all((folder / file).is_file() for file in files)), None
    )


def check_tokenizer_files(folder: Path) -> None:
    """Raise SourceError where a folder has no files that a tokenizer can be made of."""
    if (folder / TOKENIZER_FILE).exists() or default_class(folder) is not None:
        return
    known = ", ".join(" with ".join(files) for files in ((TOKENIZER_FILE,), *_CLASSES))
    half = [file for files in _CLASSES for file in files if (folder / file).exists()]
    found = f"; it has {half[0]} alone" if half else ""
    raise SourceError(f"{folder} has no tokenizer: {known} would be one{found}")


def check_read(made: Tokenizer, folder: Path, name: str) -> None:
    """Raise SourceError where a class passed over a SentencePiece model, which leaves a tokenizer of nothing.

    Args:
        made: what came out.
        folder: of the model.
        name: of the class.
    """
    for file in ("spiece.model", "sentencepiece.bpe.model"):
        if not (folder / file).is_file():
            continue
        from sentencepiece import SentencePieceProcessor

        try:
            pieces = SentencePieceProcessor(model_file=str(folder / file)).get_piece_size()
        except Exception as error:  # RuntimeError, OSError
            raise SourceError(f"{folder / file} cannot be read: {library_text(error, 100)}") from error
        if made.get_vocab_size(with_added_tokens=True) < pieces:
            raise SourceError(
                f"{folder}: {name} does not read {file}; correct tokenizer_class in "
                "tokenizer_config.json, or add a tokenizer.json"
            )


def as_fast(theirs: PreTrainedTokenizerBase, folder: Path) -> Tokenizer:
    """The `tokenizers` object of what transformers read from a folder.

    Raises:
        SourceError: it has none, and none can be made of it.
    """
    from transformers import SiglipTokenizer

    if not isinstance(theirs, SiglipTokenizer):
        backend = getattr(theirs, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise SourceError(f"{folder}: {type(theirs).__name__} has no fast form; add a tokenizer.json")
        return backend
    try:
        return _unigram(theirs)
    except Exception as error:  # of protobuf, or of tokenizers, which raises bare Exception
        raise SourceError(
            f"{folder}: no tokenizer can be made of spiece.model: {library_text(error, 200)}"
        ) from error


def _unigram(theirs: Any) -> Tokenizer:
    """A SentencePiece unigram model whose texts end with its end token."""
    from transformers.convert_slow_tokenizer import SpmConverter

    class Converter(SpmConverter):
        handle_byte_fallback = True  # it warns of models with it otherwise

    converter: Any = Converter(theirs)  # type: ignore[no-untyped-call]
    trained = converter.proto.trainer_spec
    if trained.model_type != trained.UNIGRAM:
        raise ValueError("its model is not a unigram one")
    converter.handle_byte_fallback = trained.byte_fallback
    made: Tokenizer = converter.converted()
    end = theirs.convert_ids_to_tokens(theirs.eos_token_id)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, theirs.eos_token_id)]
    )
    return made
