"""Trains the tokenizer on the final texts, writes it in both forms, and proves that they give the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from data_prep import huggingface
from data_prep.blocks.store import read_all_stored
from data_prep.config import TokenizerConfig
from data_prep.encode import check_sample, fast_encoder
from data_prep.fertility import measure_fertility
from data_prep.given_tokenizer import read_given_tokenizer
from data_prep.ledger import read_ledger
from data_prep.steps import Places
from data_prep.train_tokenizer import sample_lines, train
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from kit.run.events import append_event

TOKENIZER_FILE = "tokenizer/tokenizer.model"
FERTILITY_FILE = "fertility.json"


def make_tokenizer(config: TokenizerConfig, places: Places, run: RunDirectory, note: Path) -> None:
    """Train, or take the one that is given; convert, check and measure.

    `note` is written last: what it says is found again after a stop.

    Raises:
        UserError: too little text for the vocabulary.
        RunFailure: the two forms of the tokenizer differ.
    """
    total = read_ledger(places.ledger)[-1].bytes_out
    texts = (document.text for document in read_all_stored(places.final))
    if config.file:
        trained = read_given_tokenizer(config)
    else:
        trained = train(config, sample_lines(texts, total, config.sample_bytes))
    if not config.file and trained.vocab_size != config.vocab_size:
        append_event(run, "smaller_vocabulary", asked=config.vocab_size, got=trained.vocab_size)
    processor = SentencePieceProcessor(model_proto=trained.model)
    sample = check_sample(read_all_stored(places.final))
    converted = huggingface.convert(processor, config.kind)
    huggingface.check_same_ids(processor, converted, sample)
    huggingface.write(converted, (run.artifacts / TOKENIZER_FILE).parent)
    fertility = measure_fertility(processor, read_all_stored(places.final), config.compare_with)
    atomic_write(run.artifacts / FERTILITY_FILE, fertility.model_dump_json(indent=1) + "\n")
    atomic_write(run.artifacts / TOKENIZER_FILE, trained.model)
    fast = fast_encoder(processor, config.kind, sample)
    atomic_write(note, json.dumps({"fast_encoder": fast, "vocab_size": trained.vocab_size}))


def read_note(note: Path) -> dict[str, Any]:
    """What make_tokenizer found: `fast_encoder`, `vocab_size`."""
    told: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    return told
