"""The SentencePiece model as a Hugging Face tokenizer with the same ids, and the proof that they are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from data_prep.train_tokenizer import BEGIN, CHAT, END, PAD, RESERVED, UNKNOWN, UNKNOWN_ID
from kit.errors import RunFailure
from kit.files import atomic_write

_SPACE = "\u2581"
_SHOWN = 80
_NEVER = -1000.0


def convert(processor: SentencePieceProcessor, kind: str) -> Tokenizer:
    """Build the fast tokenizer. No pre-tokenizer, as in SentencePiece: merges see the whole text."""
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    tokenizer = Tokenizer(_bpe(processor, pieces) if kind == "bpe" else _unigram(processor, pieces))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in RESERVED])
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json: what `AutoTokenizer.from_pretrained(folder)` reads."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "pad_token": PAD,
        "additional_special_tokens": list(CHAT),
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
    }
    atomic_write(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    atomic_write(folder / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")


def check_same_ids(processor: SentencePieceProcessor, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Compare ids and decoded text on every document of a sample.

    Reserved pieces written out in a page are plain text to SentencePiece, so they are compared as plain text here
    too; to a user of the Hugging Face tokenizer they are special unless `split_special_tokens=True`.

    Raises:
        RunFailure: they differ; nothing after this step would be what it claims.
    """
    tokenizer.encode_special_tokens = True
    for text in texts:
        expected, actual = processor.encode(text), tokenizer.encode(text, add_special_tokens=False).ids
        if expected != actual:
            raise _difference(text, _first_difference(processor, expected, actual), "the same ids as SentencePiece's")
        whole = text.replace(
            _SPACE, " "
        )  # a page's own U+2581 is SentencePiece's mark of a space, and comes back as one
        if processor.decode(expected) != whole or tokenizer.decode(actual, skip_special_tokens=False) != whole:
            raise _difference(text, "decoding does not give the text back", "decode(encode(text)) == text")
    tokenizer.encode_special_tokens = False


def _bpe(processor: SentencePieceProcessor, pieces: list[str]) -> Any:
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    learned = [piece for index, piece in enumerate(pieces) if _is_learned(processor, index)]
    merges = [merge for piece in learned for merge in _merges_into(piece, vocabulary)]
    return models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)


def _merges_into(piece: str, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others. SentencePiece gives them one rank, its order of learning; where two
    ways overlap it takes the leftmost, which the longest left part comes closest to.
    """
    cuts = range(len(piece) - 1, 0, -1)
    return [(piece[:cut], piece[cut:]) for cut in cuts if piece[:cut] in vocabulary and piece[cut:] in vocabulary]


def _unigram(processor: SentencePieceProcessor, pieces: list[str]) -> Any:
    """SentencePiece never matches reserved and byte pieces in a text; this library does, so they get a score that any
    spelling beats.
    """
    learned = [_is_learned(processor, index) for index in range(len(pieces))]
    scored = [(piece, processor.get_score(i) if learned[i] else _NEVER) for i, piece in enumerate(pieces)]
    return models.Unigram(scored, UNKNOWN_ID, byte_fallback=True)


def _is_learned(processor: SentencePieceProcessor, index: int) -> bool:
    return not (processor.is_control(index) or processor.is_unknown(index) or processor.is_byte(index))


def _first_difference(processor: SentencePieceProcessor, expected: list[int], actual: list[int]) -> str:
    pairs = zip([*expected, UNKNOWN_ID], [*actual, UNKNOWN_ID], strict=False)
    at = next((index for index, (one, other) in enumerate(pairs) if one != other), 0)
    return (
        f"ids differ at token {at}: {[processor.id_to_piece(i) for i in expected[at : at + 4]]} "
        f"against {[processor.id_to_piece(i) for i in actual[at : at + 4]]}"
    )


def _difference(text: str, what: str, expected: str) -> RunFailure:
    return RunFailure(
        f"the Hugging Face tokenizer differs on a document beginning {text[:_SHOWN]!r}: {what}",
        expected=f"{expected} on every document of the check sample",
        action="use tokenizer.kind: bpe, or another tokenizer.vocab_size, and report this document",
    )
