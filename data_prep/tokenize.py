"""Text to token shards: every task encodes its documents, then one pass joins them and splits off the held-out ones."""

from __future__ import annotations

import functools
import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from sentencepiece import SentencePieceProcessor

from data_prep.encode import BATCH_CHARACTERS, Encoder, build_encoder
from data_prep.train_tokenizer import END_ID
from kit.errors import UserError
from kit.tokens.card import SplitCard
from kit.tokens.shards import Shard, ShardWriter, best_dtype

TRAIN, VALIDATION = "train", "validation"
SHARDS = "shards"
_FACTS = np.dtype([("hash", "<u8"), ("text_bytes", "<i8")])


class EncodeDocuments(PipelineStep):
    """Encodes a task's documents, each followed by one end token, into a shard `folder/<rank>`.

    Beside it lies `<rank>.npy`, the hash and the size of every text, so that nothing reads the texts again.

    Args:
        model_file: the SentencePiece model.
        folder: for the shards of all tasks.
        fast: whether the table of words may stand in for SentencePiece, as `fast_encoder` found.
    """

    type = "TOKENIZE"
    name = "tokenize"

    def __init__(self, model_file: Path, folder: Path, fast: bool = False) -> None:
        super().__init__()
        self.model_file = model_file
        self.folder = folder
        self.fast = fast

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the shard gets its name when all are encoded."""
        encoder, pieces = _open_encoder(self.model_file.read_bytes(), self.fast)
        facts: list[tuple[int, int]] = []
        waiting: list[str] = []
        characters = 0
        with ShardWriter(self.folder / f"{rank:05d}", best_dtype(pieces)) as writer:
            for document in data:
                data_of_text = document.text.encode()
                facts.append((_hash(data_of_text), len(data_of_text)))
                waiting.append(document.text)
                characters += len(document.text)
                if characters >= BATCH_CHARACTERS:
                    _write(encoder, waiting, writer)
                    waiting, characters = [], 0
                yield document
            _write(encoder, waiting, writer)
            _save(self.folder / f"{rank:05d}.npy", np.array(facts, _FACTS))
            writer.finish()


@functools.lru_cache(maxsize=1)
def _open_encoder(model: bytes, fast: bool) -> tuple[Encoder, int]:
    """One encoder for all tasks of a process: what one learns helps the next, and changes no id."""
    processor = SentencePieceProcessor(model_proto=model)
    return build_encoder(processor, fast), processor.get_piece_size()


def _write(encoder: Encoder, texts: list[str], writer: ShardWriter) -> None:
    for ids in encoder.encode(texts):
        row = np.empty(len(ids) + 1, ids.dtype)
        row[:-1] = ids
        row[-1] = END_ID
        writer.add(row)


def _save(path: Path, facts: npt.NDArray[np.void]) -> None:
    partial = path.with_suffix(".npy.partial")
    with partial.open("wb") as file:
        np.save(file, facts)
    os.replace(partial, path)


def text_hash(text: str) -> int:
    """64 bits of the SHA-256 of the text, which decide on its split."""
    return _hash(text.encode())


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def join_splits(encoded: Path, artifacts: Path, validation_fraction: float) -> dict[str, SplitCard]:
    """Write artifacts/shards/train and validation from the tasks' shards, in task order.

    Args:
        encoded: folder of the tasks' shards, as EncodeDocuments left it.
        artifacts: the run's artifacts.
        validation_fraction: expected share of held-out documents.

    Raises:
        UserError: fewer than two different documents, so that one side would be empty.
    """
    tasks = [path.with_suffix("") for path in sorted(encoded.glob("*.idx"))]
    limit = _validation_limit((np.load(task.with_suffix(".npy"))["hash"] for task in tasks), validation_fraction)
    dtype = Shard(tasks[0]).dtype
    text_bytes: Counter[str] = Counter()
    with (
        ShardWriter(artifacts / SHARDS / TRAIN, dtype) as train,
        ShardWriter(artifacts / SHARDS / VALIDATION, dtype) as validation,
    ):
        for task in tasks:
            shard, facts = Shard(task), np.load(task.with_suffix(".npy"))
            held_out = facts["hash"] <= np.uint64(limit)
            text_bytes[VALIDATION] += int(facts["text_bytes"][held_out].sum())
            text_bytes[TRAIN] += int(facts["text_bytes"][~held_out].sum())
            for index, side in enumerate(held_out.tolist()):
                (validation if side else train).add(shard.document(index))
        infos = {TRAIN: train.finish(), VALIDATION: validation.finish()}
    return {
        split: SplitCard(prefix=f"{SHARDS}/{split}", text_bytes=text_bytes[split], **info._asdict())
        for split, info in infos.items()
    }


def _validation_limit(hashes: Iterator[npt.NDArray[np.uint64]], fraction: float) -> int:
    """The largest hash that is held out: a fixed threshold, moved only where one side would be empty."""
    least: int | None = None
    largest: list[int] = []
    for part in hashes:
        if len(part):
            least = int(part.min()) if least is None else min(least, int(part.min()))
            ends = np.unique(part)[-2:].tolist()
            largest = heapq.nlargest(2, {*largest, *ends})
    if least is None or len(largest) < 2:
        raise UserError(
            f"{len(largest)} different document(s) survived, and both a training and a validation split are needed",
            expected="at least two different documents",
            action="give more input or loosen the filters",
        )
    return min(max(int(fraction * 2**64), least), largest[1])
