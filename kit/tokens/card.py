"""The dataset card: what went into a set of shards, what was dropped and why, and fingerprints of everything."""

from __future__ import annotations

import json
from pathlib import Path

from kit.config import Config, parse
from kit.files import atomic_write, read_record

SCHEMA_VERSION = 1
CARD_NAME = "card.json"


class SplitCard(Config):
    """One split's shard. `prefix` is relative to the card's folder; `text_bytes` is UTF-8 text without end tokens."""

    prefix: str
    documents: int
    tokens: int
    text_bytes: int
    sha256_bin: str
    sha256_idx: str


class TokenizerCard(Config):
    """The tokenizer the shards were made with. `file` is relative to the card's folder.

    `unknown_id` is the id of the unknown piece, `byte_ids` the first and the last id of the single bytes; None where
    the tokenizer has none, or the card is older than the field.
    """

    kind: str
    vocab_size: int
    fingerprint: str
    file: str
    eod_id: int
    pad_id: int
    reserved: list[str] = []
    unknown_id: int | None = None
    byte_ids: tuple[int, int] | None = None


class Example(Config):
    """A dropped document: enough to judge the rule that dropped it."""

    id: str
    url: str = ""
    text: str


class BlockCard(Config):
    """What one block did. Bytes are UTF-8 text (raw record bytes before extraction).

    `seconds` is wall time and `cpu_seconds` the processor's, both summed over the tasks.
    """

    name: str
    documents_in: int
    documents_out: int
    bytes_in: int
    bytes_out: int
    seconds: float = 0.0
    cpu_seconds: float | None = None
    dropped: dict[str, int] = {}
    examples: dict[str, list[Example]] = {}


class LanguageCard(Config):
    """Documents and bytes of one language."""

    documents: int
    bytes: int


class SourceCard(Config):
    """What came of one input file, or of one source of the mixture: documents of the dataset, and documents dropped."""

    documents: int
    bytes: int
    tokens: int = 0
    dropped: int = 0


class InputCard(Config):
    """One input file, by the name the user gave."""

    path: str
    bytes: int
    sha256: str


class DatasetCard(Config):
    """A set of shards and its origin.

    Attributes:
        languages: After all blocks.
        languages_in: As identified, before anything was dropped for its language or later.
        lengths_kept: Least characters of a bin -> documents in it; bins end where the next power of two begins.
        lengths_dropped: The same of documents that were dropped as text, after extraction.
        duplicate_clusters: Documents of a cluster of near duplicates -> clusters of that size.
        sources: By source of the mixture, or by input file.
        step_cpu_seconds: Processor time of every step over all its tasks: all that the run cost.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    created_by: str
    splits: dict[str, SplitCard]
    tokenizer: TokenizerCard
    blocks: list[BlockCard]
    languages: dict[str, LanguageCard] = {}
    languages_in: dict[str, LanguageCard] = {}
    lengths_kept: dict[int, int] = {}
    lengths_dropped: dict[int, int] = {}
    duplicate_clusters: dict[int, int] = {}
    sources: dict[str, SourceCard] = {}
    step_cpu_seconds: dict[str, float] = {}
    inputs: list[InputCard] = []
    records_corrupt: int = 0
    config_digest: str
    documents_in: int
    documents_out: int
    eod_per_document: bool = True


def write_card(path: Path, card: DatasetCard) -> None:
    """Writes a card, whole or not at all."""
    atomic_write(path, json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_card(path: Path) -> DatasetCard:
    """Reads a card.

    Raises:
        UserError: If it is missing, damaged, or of a later schema.
    """
    what = "a dataset card (card.json), as data_prep writes it beside its shards"
    return parse(DatasetCard, read_record(path, what, newest_schema=SCHEMA_VERSION), str(path))
