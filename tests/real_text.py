"""Small shards of real text for tests: the source text of Python's own standard library, which is always there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import sentencepiece

from kit.files import sha256_file
from kit.tokens.card import DatasetCard, SplitCard, TokenizerCard, write_card
from kit.tokens.shards import ShardWriter, best_dtype

EOD_ID, PAD_ID = 2, 3


def documents(count: int = 24, characters: int = 6000) -> list[str]:
    """The beginnings of the longest modules of the standard library."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    return [path.read_text(encoding="utf-8", errors="ignore")[:characters] for path in paths[:count]]


def byte_tokens() -> np.ndarray:
    """The documents as one row of bytes: token ids below 256."""
    return np.frombuffer("\n".join(documents()).encode(), dtype=np.uint8)


def write_dataset(artifacts: Path, vocab_size: int = 512) -> DatasetCard:
    """Trains a tokenizer, writes shards and their card as data_prep would."""
    texts = documents()
    tokenizer = artifacts / "tokenizer" / "tokenizer.model"
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_bytes(_train_tokenizer(texts, vocab_size))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    splits = {}
    for name, part in (("validation", texts[:4]), ("train", texts[4:])):
        with ShardWriter(artifacts / "shards" / name, best_dtype(vocab_size)) as writer:
            for text in part:
                writer.add([*processor.encode(text), EOD_ID])
            info = writer.finish()
        splits[name] = SplitCard(
            prefix=f"shards/{name}", text_bytes=sum(len(text.encode()) for text in part), **info._asdict()
        )
    card = DatasetCard(
        name="standard-library",
        created_by="tests",
        splits=splits,
        tokenizer=TokenizerCard(
            kind="sentencepiece",
            vocab_size=vocab_size,
            fingerprint=sha256_file(tokenizer),
            file="tokenizer/tokenizer.model",
            eod_id=EOD_ID,
            pad_id=PAD_ID,
        ),
        blocks=[],
        config_digest="sha256:0",
        documents_in=len(texts),
        documents_out=len(texts),
    )
    write_card(artifacts / "card.json", card)
    return card


def _train_tokenizer(texts: list[str], vocab_size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if line.strip()),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=PAD_ID,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
