"""Checks a set of shards against its card before any accelerator starts."""

from __future__ import annotations

from pathlib import Path

from kit.tokens.card import DatasetCard
from kit.tokens.examine import examine
from kit.tokens.findings import Depth


def check_shards(
    artifacts: Path, tokenizer_file: Path | None = None, *, thorough: bool = False, fast: bool = False
) -> DatasetCard:
    """Checks shards, card and tokenizer against one another.

    Args:
        artifacts: Folder with card.json.
        tokenizer_file: The SentencePiece model that training will use; the card's own if None.
        thorough: Also compare the SHA-256 of every shard file with the card's.
        fast: Look at a bounded sample of the tokens only, as every rank of a training run may.

    Returns:
        The card.

    Raises:
        UserError: For the first error: a damaged index, counts that differ from the card's, a token id outside the
            vocabulary, a document without its end token, a tokenizer whose fingerprint is not the card's, and so on.
    """
    depth: Depth = "thorough" if thorough else "fast" if fast else "full"
    found = examine(artifacts, tokenizer_file, depth)
    for finding in found.errors:
        raise finding.as_error()
    return found.card
