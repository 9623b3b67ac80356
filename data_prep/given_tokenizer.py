"""A tokenizer that another run of data_prep has trained, in place of a new one: blends need shards of one tokenizer."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import sentencepiece_model_pb2

from data_prep.config import TokenizerConfig
from data_prep.train_tokenizer import RESERVED, Trained
from kit.errors import UserError

_KINDS = {1: "unigram", 2: "bpe"}
"""SentencePiece's numbers of its model types."""


def check_given_tokenizer(config: TokenizerConfig) -> None:
    """Read the tokenizer that a recipe names, so that a run that cannot do so ends before it begins.

    Raises:
        UserError: as `read_given_tokenizer` has it.
    """
    if config.file:
        read_given_tokenizer(config)


def read_given_tokenizer(config: TokenizerConfig) -> Trained:
    """The model that `tokenizer.file` names, byte by byte.

    Raises:
        UserError: there is none, it is no SentencePiece model of `tokenizer.kind`, or not one of this kit's.
    """
    assert config.file, "the recipe names a tokenizer"
    path = Path(config.file)
    try:
        model = path.read_bytes()
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    except OSError as error:
        raise _wrong(path, error.strerror or "it cannot be read") from error
    except Exception as error:  # protobuf's own, whose class depends on its version
        raise _wrong(path, "it is no SentencePiece model") from error
    pieces = [piece.piece for piece in proto.pieces]
    if tuple(pieces[: len(RESERVED)]) != RESERVED:
        raise _wrong(path, f"its pieces begin with {', '.join(pieces[:4]) or 'nothing'}")
    kind = _KINDS.get(proto.trainer_spec.model_type, "another kind")
    if kind != config.kind:
        raise _wrong(path, f"it is {kind}, and tokenizer.kind is {config.kind}")
    return Trained(model, len(pieces))


def _wrong(path: Path, words: str) -> UserError:
    return UserError(
        f"tokenizer.file: {path}: {words}",
        expected="artifacts/tokenizer/tokenizer.model of a run of data_prep",
        action="mend the path, or leave tokenizer.file out: a tokenizer is trained then",
    )
