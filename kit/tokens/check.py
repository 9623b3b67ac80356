"""Checks a set of shards against its card before any accelerator starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kit.errors import UserError
from kit.files import require_file, sha256_file
from kit.tokens.card import CARD_NAME, DatasetCard, SplitCard, read_card
from kit.tokens.shards import Shard

_CHUNK_TOKENS = 1 << 22


def check_shards(artifacts: Path, tokenizer_file: Path | None = None, *, thorough: bool = False) -> DatasetCard:
    """Checks shards, card and tokenizer against one another.

    Args:
        artifacts: Folder with card.json.
        tokenizer_file: The SentencePiece model that training will use; the card's own if None.
        thorough: Also compare the SHA-256 of every shard file with the card's.

    Returns:
        The card.

    Raises:
        UserError: For a damaged index, counts that differ from the card's, a token id outside the vocabulary, or a
            tokenizer whose fingerprint is not the card's.
    """
    card = read_card(artifacts / CARD_NAME)
    _check_tokenizer(artifacts, card, tokenizer_file)
    for name, split in card.splits.items():
        shard = Shard(artifacts / split.prefix)
        _check_split(shard, name, split, card)
        if thorough and shard.digests() != (split.sha256_bin, split.sha256_idx):
            raise UserError(
                f"{shard.prefix}.bin/.idx differ from the SHA-256 in the card",
                expected="the files that data_prep wrote",
                action="copy the shards again, or run data_prep again",
            )
    return card


def _check_tokenizer(artifacts: Path, card: DatasetCard, tokenizer_file: Path | None) -> None:
    path = tokenizer_file or artifacts / card.tokenizer.file
    require_file(path, "the SentencePiece model that the shards were made with")
    fingerprint = sha256_file(path)
    if fingerprint != card.tokenizer.fingerprint:
        raise UserError(
            f"tokenizer {path} has fingerprint {fingerprint[:12]}, and the shards were made with "
            f"{card.tokenizer.fingerprint[:12]}",
            expected="the tokenizer that made the shards: with another one every token id means something else",
            action=f"use {artifacts / card.tokenizer.file}, or run data_prep again with the tokenizer you want",
        )


def _check_split(shard: Shard, name: str, split: SplitCard, card: DatasetCard) -> None:
    if (shard.documents, len(shard.tokens)) != (split.documents, split.tokens):
        raise UserError(
            f"{name}: {shard.documents} documents and {len(shard.tokens)} tokens in {shard.bin_path}",
            expected=f"{split.documents} documents and {split.tokens} tokens, as the card says",
            action="copy the shards and the card again, or run data_prep again",
        )
    for start in range(0, len(shard.tokens), _CHUNK_TOKENS):
        chunk = shard.tokens[start : start + _CHUNK_TOKENS]
        if int(chunk.max()) >= card.tokenizer.vocab_size or int(chunk.min()) < 0:
            at = start + int(np.argmax((chunk >= card.tokenizer.vocab_size) | (chunk < 0)))
            raise UserError(
                f"{name}: token id {int(shard.tokens[at])} at position {at} of {shard.bin_path}",
                expected=f"ids below the vocabulary's {card.tokenizer.vocab_size}",
                action="run data_prep again: shards and tokenizer do not belong together",
            )
