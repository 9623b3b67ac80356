"""Trains the tokenizer: SentencePiece (Kudo & Richardson 2018, "SentencePiece: A simple and language independent
subword tokenizer and detokenizer for Neural Text Processing"), so set up that every text comes back exactly.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from data_prep.config import TokenizerConfig
from kit.errors import UserError

UNKNOWN, BEGIN, END, PAD = "<unk>", "<s>", "</s>", "<pad>"
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
RESERVED = (UNKNOWN, BEGIN, END, PAD, *CHAT)
UNKNOWN_ID, BEGIN_ID, END_ID, PAD_ID = range(4)
_MAX_LINE_BYTES = 16384
_SIZE_STEP = 64  # a vocabulary that divides evenly over ranks and suits matrix multiplication
_LEAST_SIZE = 300  # 256 bytes, the reserved pieces and their characters
# Every character of a reserved piece's name is a piece itself, so that such a name on a page can be spelled out.
_REQUIRED = "".join(sorted({*"".join(RESERVED), *"<0x123456789ABCDEF>"}))


def sample_lines(texts: Iterable[str], total_bytes: int, sample_bytes: int) -> Iterator[str]:
    """Lines of every k-th document, k so that about `sample_bytes` come together; the same lines every time.

    Line ends and tabs are left out: SentencePiece does not learn pieces across them, they stay single bytes.
    """
    step = max(1, -(-total_bytes // sample_bytes))
    for number, text in enumerate(texts):
        if number % step == 0:
            for line in text.split("\n"):
                if line.strip():
                    yield from _cut(line)


class Trained(NamedTuple):
    """A model file's bytes, and how many pieces it really has."""

    model: bytes
    vocab_size: int


def train(config: TokenizerConfig, lines: Iterable[str]) -> Trained:
    """Train a model.

    Normalisation is the identity, spaces are kept as they are, bytes stand in for unknown characters, digits are
    split: decode(encode(text)) == text. The chat marks are control pieces: the text "<|user|>" on a page is never
    encoded as the mark itself. One thread, no shuffling: the same lines give the same bytes.

    With `allow_smaller`, a text that is too small for the vocabulary gets the largest multiple of 64 that it gives.

    Raises:
        UserError: the text is too small for the vocabulary.
    """
    lines = list(lines) if config.allow_smaller else lines
    size = config.vocab_size
    while True:
        try:
            model = _train(config, size, lines)
            break
        except (RuntimeError, OSError) as error:
            largest = _largest_size(error)
            size = min(largest, size - 1) // _SIZE_STEP * _SIZE_STEP
            if not config.allow_smaller or size < _LEAST_SIZE:
                raise _too_little_text(config, error, largest) from error
    return Trained(model if config.kind == "bpe" else _with_exact_scores(model), size)


def _train(config: TokenizerConfig, vocab_size: int, lines: Iterable[str]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=config.kind,
        vocab_size=vocab_size,
        character_coverage=config.character_coverage,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        byte_fallback=True,
        split_digits=True,
        unk_id=UNKNOWN_ID,
        bos_id=BEGIN_ID,
        eos_id=END_ID,
        pad_id=PAD_ID,
        unk_piece=UNKNOWN,
        bos_piece=BEGIN,
        eos_piece=END,
        pad_piece=PAD,
        control_symbols=list(CHAT),
        required_chars=_REQUIRED,
        max_sentence_length=_MAX_LINE_BYTES,
        shuffle_input_sentence=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _largest_size(error: Exception) -> int:
    """The largest vocabulary that SentencePiece says the text gives; 0 where it says none."""
    found = re.search(r"value <= (\d+)", str(error))
    return int(found.group(1)) if found else 0


def _too_little_text(config: TokenizerConfig, error: Exception, largest: int) -> UserError:
    smaller = f"a smaller tokenizer.vocab_size (at most {largest})" if largest else "a smaller tokenizer.vocab_size"
    return UserError(
        f"tokenizer.vocab_size: {config.vocab_size} pieces cannot be learned from this text ({_reason(error)})",
        expected="enough clean text for the vocabulary: as a rule at least 100 bytes a piece",
        action=f"give more input, loosen the filters, set {smaller}, or tokenizer.allow_smaller: true",
    )


def _with_exact_scores(model: bytes) -> bytes:
    """Round the scores of a unigram model to multiples of 1/32.

    SentencePiece adds scores along a document in 32-bit floats, the Hugging Face library in 64-bit; rounded like this
    the sums are exact in both up to half a million, so both find the same best segmentation and break ties alike.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    for piece in proto.pieces:
        piece.score = round(piece.score * 32) / 32
    return bytes(proto.SerializeToString())


def _cut(line: str) -> Iterator[str]:
    """SentencePiece skips lines beyond a limit without a word; pieces of them are better than nothing."""
    limit = _MAX_LINE_BYTES // 4  # a character has at most four bytes
    for start in range(0, len(line), limit):
        yield line[start : start + limit]


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
