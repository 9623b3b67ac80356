"""Figures of a split that text does not have: each with the limit that it passed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kit.tokens.findings import Examination, Finding, SplitFacts

LEAST_TOKENS = 20_000
"""Below, rates and entropy say little."""
LEAST_ENTROPY_BITS = 4.0
LEAST_ENTROPY_SHARE = 0.4
"""Of the most that the vocabulary allows, where that is less than LEAST_ENTROPY_BITS."""
MOST_ENTROPY_SHARE = 0.97
BYTES_PER_TOKEN = (0.8, 16.0)
MOST_BYTE_RATE = 0.10
MOST_UNKNOWN_RATE = 0.01
MOST_EMPTY_SHARE = 0.01
MOST_REPEATED_SHARE = 0.01
MOST_LEAKED_SHARE = 0.01
MOST_NEAR_LEAKED_SHARE = 0.01


class Alarms:
    """The findings that an examination's figures give rise to."""

    def __init__(self, found: Examination) -> None:
        self._found = found

    def all(self) -> list[Finding]:
        """Of every split."""
        return [alarm for name, facts in self._found.splits.items() for alarm in self._of(name, facts)]

    def _of(self, name: str, facts: SplitFacts) -> Iterator[Finding]:
        if not facts.documents:
            yield Finding(name, "error", f"{name}: no document", "at least one", "give data_prep more input")
            return
        if facts.tokens >= LEAST_TOKENS:
            yield from self._entropy(name, facts)
            yield from _length(name, facts)
            yield from _pieces(name, facts)
        yield from _documents(name, facts)

    def _entropy(self, name: str, facts: SplitFacts) -> Iterator[Finding]:
        bits, vocab = facts.entropy_bits, self._found.card.tokenizer.vocab_size
        if bits is None:
            return
        most = math.log2(vocab)
        least = min(LEAST_ENTROPY_BITS, LEAST_ENTROPY_SHARE * most)
        what = f"{name}: the ids have an entropy of {bits:.2f} bits"
        if bits < least:
            action = "look at some documents: the same few tokens come over and over"
            yield _warning(name, what, f"at least {least:.2f}, as text has", action)
        elif bits > MOST_ENTROPY_SHARE * most and facts.tokens > 50 * vocab:
            action = "look at some documents: they may be noise, or of another tokenizer"
            yield _warning(name, what, f"below {MOST_ENTROPY_SHARE * most:.2f} of {most:.2f}: not all alike", action)


def _length(name: str, facts: SplitFacts) -> Iterator[Finding]:
    low, high = BYTES_PER_TOKEN
    if facts.bytes_per_token is not None and not low <= facts.bytes_per_token <= high:
        found = f"{name}: {facts.bytes_per_token:.2f} bytes of text a token"
        yield _warning(name, found, f"{low} to {high}", "see that shards and card are of the same run")


def _pieces(name: str, facts: SplitFacts) -> Iterator[Finding]:
    if facts.unknown_rate:
        level = _warning if facts.unknown_rate <= MOST_UNKNOWN_RATE else _error
        action = "train a tokenizer with byte fallback: what is unknown is lost"
        yield level(name, f"{name}: {_share(facts.unknown_rate)} of tokens are the unknown piece", "none", action)
    if facts.byte_rate is not None and facts.byte_rate > MOST_BYTE_RATE:
        found = f"{name}: {_share(facts.byte_rate)} of tokens are single bytes"
        action = "train the tokenizer on this text, with a larger vocabulary or more languages in its sample"
        yield _warning(name, found, f"at most {_share(MOST_BYTE_RATE)}", action)


def _documents(name: str, facts: SplitFacts) -> Iterator[Finding]:
    empty = (facts.empty_documents or 0) / facts.documents
    if empty:
        level = _warning if empty <= MOST_EMPTY_SHARE else _error
        found = f"{name}: {facts.empty_documents} documents of one token ({_share(empty)})"
        yield level(name, found, "text in every document", "look at the filters' settings, and run data_prep again")
    if (facts.repeated_share or 0) > MOST_REPEATED_SHARE:
        found = f"{name}: {_share(facts.repeated_share)} of documents have the tokens of an earlier one"
        yield _warning(name, found, f"at most {_share(MOST_REPEATED_SHARE)}", "turn dedup.exact on")
    if facts.leaked_share:
        level = _warning if facts.leaked_share <= MOST_LEAKED_SHARE else _error
        found = f"{name}: {_share(facts.leaked_share)} of documents are in the training split too"
        action = "turn dedup.exact on: a loss on documents that were trained on says nothing"
        yield level(name, found, "none", action)
    if (facts.near_leaked_share or 0) > MOST_NEAR_LEAKED_SHARE:
        found = (
            f"{name}: {_share(facts.near_leaked_share)} of documents begin with the 64 tokens of a training document"
        )
        yield _warning(name, found, f"at most {_share(MOST_NEAR_LEAKED_SHARE)}", "turn dedup.minhash on")


def _share(rate: float | None) -> str:
    return f"{100 * (rate or 0):.3g} %"


def _warning(name: str, found: str, expected: str, action: str) -> Finding:
    return Finding(name, "warning", found, expected, action)


def _error(name: str, found: str, expected: str, action: str) -> Finding:
    return Finding(name, "error", found, expected, action)
