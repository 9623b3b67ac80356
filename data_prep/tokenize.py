"""Text to token shards: every task encodes its documents, then one pass joins them and splits off the held-out ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from sentencepiece import SentencePieceProcessor

from data_prep.blocks.store import read_stored
from data_prep.train_tokenizer import END_ID
from kit.errors import UserError
from kit.tokens.card import SplitCard
from kit.tokens.shards import Shard, ShardWriter, best_dtype

TRAIN, VALIDATION = "train", "validation"
SHARDS = "shards"


class EncodeDocuments(PipelineStep):
    """Encodes a task's documents, each followed by one end token, into a shard `folder/<rank>`."""

    type = "TOKENIZE"
    name = "tokenize"

    def __init__(self, model_file: Path, folder: Path) -> None:
        super().__init__()
        self.model_file = model_file
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the shard gets its name when all are encoded."""
        processor = SentencePieceProcessor(model_file=str(self.model_file))
        with ShardWriter(self.folder / f"{rank:05d}", best_dtype(processor.get_piece_size())) as writer:
            for document in data:
                writer.add(np.asarray([*processor.encode(document.text), END_ID]))
                yield document
            writer.finish()


def text_hash(text: str) -> int:
    """64 bits of the SHA-256 of the text, which decide on its split."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def join_splits(
    encoded: Path, documents: Path, artifacts: Path, validation_fraction: float, vocab_size: int
) -> dict[str, SplitCard]:
    """Write artifacts/shards/train and validation from the tasks' shards, in task order.

    Args:
        encoded: folder of the tasks' shards.
        documents: folder of the tasks' texts, in the same order.
        artifacts: the run's artifacts.
        validation_fraction: expected share of held-out documents.
        vocab_size: of the tokenizer.

    Raises:
        UserError: fewer than two documents, so that one side would be empty.
    """
    paths = sorted(documents.glob("*.jsonl"))
    limit = _validation_limit([text_hash(doc.text) for path in paths for doc in read_stored(path)], validation_fraction)
    dtype = best_dtype(vocab_size)
    text_bytes: Counter[str] = Counter()
    with (
        ShardWriter(artifacts / SHARDS / TRAIN, dtype) as train,
        ShardWriter(artifacts / SHARDS / VALIDATION, dtype) as validation,
    ):
        writers = {TRAIN: train, VALIDATION: validation}
        for path in paths:
            shard = Shard(encoded / path.stem)
            for index, document in enumerate(read_stored(path)):
                split = VALIDATION if text_hash(document.text) <= limit else TRAIN
                writers[split].add(shard.document(index))
                text_bytes[split] += len(document.text.encode())
        infos = {split: writer.finish() for split, writer in writers.items()}
    return {
        split: SplitCard(prefix=f"{SHARDS}/{split}", text_bytes=text_bytes[split], **info._asdict())
        for split, info in infos.items()
    }


def _validation_limit(hashes: list[int], fraction: float) -> int:
    """The largest hash that is held out: a fixed threshold, moved only where one side would be empty."""
    distinct = sorted(set(hashes))
    if len(distinct) < 2:
        raise UserError(
            f"{len(distinct)} document(s) survived, and both a training and a validation split are needed",
            expected="at least two different documents",
            action="give more input or loosen the filters",
        )
    return min(max(int(fraction * 2**64), distinct[0]), distinct[-2])
