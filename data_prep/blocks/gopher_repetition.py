"""Pages that repeat their own lines, paragraphs or word sequences: Rae et al. (2021), appendix A1, table A1.

The rules in their order, and to the last detail those of datatrove's GopherRepetitionFilter. Word sequences are
compared by 64-bit polynomial hashes of their characters, all of a length at once; only where the number of repeated
ones could break a threshold are they counted one after the other as the reference does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from numpy.typing import NDArray

from data_prep.blocks.config import GopherRepetitionConfig
from data_prep.blocks.words import words_of
from data_prep.ledger import ReasonKeeper

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_SPACE = np.uint64(32)
_NONE = np.zeros(1, np.int64)
_WORDS_AT_ONCE = 4096

Hashes = NDArray[np.uint64]


class GopherRepetition(BaseFilter):
    """Drops by repetition, naming the first rule that a page breaks."""

    name = "gopher_repetition"

    def __init__(self, config: GopherRepetitionConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config
        self._top = dict(sorted(config.top_ngrams.items()))
        self._duplicate = dict(sorted(config.duplicate_ngrams.items()))

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or drop with the reason of datatrove's filter."""
        text = doc.text
        if not text:
            return False, "empty"
        reason = self._repeated_lines(text)
        if reason is None:
            words = words_of(text, doc.metadata.get("language", "en"))
            reason = self._repeated_words(words, len(text)) if words else None
        return (False, reason) if reason else True

    def _repeated_lines(self, text: str) -> str | None:
        config = self.config
        paragraphs = paragraphs_of(text)
        elements, characters = repeated(paragraphs)
        if 0 < config.duplicate_paragraph_fraction < elements / len(paragraphs):
            return "dup_para_frac"
        if 0 < config.duplicate_paragraph_character_fraction < characters / len(text):
            return "dup_para_char_frac"
        lines = lines_of(text)
        elements, characters = repeated(lines)
        if 0 < config.duplicate_line_fraction < elements / len(lines):
            return "dup_line_frac"
        if 0 < config.duplicate_line_character_fraction < characters / len(text):
            return "dup_line_char_frac"
        return None

    def _repeated_words(self, words: list[str], characters: int) -> str | None:
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        hashes, powers = _word_hashes(words, lengths)
        # a sequence's hash with a space after every word, for these are told apart by their words ...
        spaced = _sequences(hashes + _SPACE * powers, powers * np.uint64(_BASE), self._top)
        for size, sequences in spaced:
            limit = self._top[size]
            if _top_characters(sequences, lengths, size, limit * characters) / characters > limit:
                return f"top_{size}_gram"
        shortest, lowest_limit = min(self._duplicate, default=0), min(self._duplicate.values(), default=0.0)
        # ... and without, for these are told apart by their characters alone
        for size, sequences in _sequences(hashes, powers, self._duplicate):
            if size == shortest and _covered_characters(sequences, lengths, size) <= lowest_limit * characters:
                return None
            if _repeated_characters(sequences, lengths, size) / characters > self._duplicate[size]:
                return f"duplicated_{size}_n_grams"
        return None


def paragraphs_of(text: str) -> list[str]:
    """The text cut at empty lines, as `re.split` by two line ends or more cuts it when stripped."""
    text = text.strip()
    if "\n\n" not in text:
        return [text]
    return [part.lstrip("\n") for part in text.split("\n\n") if part and part != "\n"]


def lines_of(text: str) -> list[str]:
    """The text cut at line ends, as `re.split` by one line end or more cuts it."""
    lines = text.split("\n")
    return [lines[0], *filter(None, lines[1:-1]), lines[-1]] if "\n\n" in text else lines


def repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts came before among them, and how many characters those have."""
    different = set(parts)
    elements = len(parts) - len(different)
    return elements, sum(map(len, parts)) - sum(map(len, different)) if elements else 0


def _word_hashes(words: list[str], lengths: NDArray[np.int64]) -> tuple[Hashes, Hashes]:
    """The polynomial hash of every word, and the base to the power of its length."""
    hashes = np.empty(len(words), np.uint64)
    for first in range(0, len(words), _WORDS_AT_ONCE):
        some = slice(first, first + _WORDS_AT_ONCE)
        joined = "".join(words[some])
        ends = np.cumsum(lengths[some])
        starts = ends - lengths[some]
        powers, inverses = _powers(_rounded(len(joined)))
        weighted = _characters(joined) * powers[: len(joined)]
        hashes[some] = np.add.reduceat(weighted, starts) * inverses[starts]
    return hashes, _powers(_rounded(int(lengths.max()) + 1))[0][lengths]


def _characters(text: str) -> Hashes:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint64)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


def _rounded(size: int) -> int:
    return max(1 << 16, 1 << size.bit_length())


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse, modulo 2**64."""
    steps = np.full(count, _BASE, np.uint64), np.full(count, pow(_BASE, -1, 1 << 64), np.uint64)
    for step in steps:
        step[0] = 1
    return np.cumprod(steps[0]), np.cumprod(steps[1])


def _sequences(hashes: Hashes, powers: Hashes, sizes: Collection[int]) -> Iterator[tuple[int, Hashes]]:
    """Hashes of all sequences of so many words, in order of their place; each size grows from the one before."""
    grown = hashes
    for size in range(1, max(sizes, default=0) + 1):
        if size > 1:
            grown = hashes[: len(grown) - 1] + powers[: len(grown) - 1] * grown[1:]
        if len(grown) == 0:
            return
        if size in sizes:
            yield size, grown


def _span_lengths(lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Characters of every sequence of so many words."""
    ends = np.cumsum(lengths)
    spans = ends[size - 1 :].copy()
    spans[1:] -= ends[:-size]
    return spans


def _top_characters(sequences: Hashes, lengths: NDArray[np.int64], size: int, enough: float) -> int:
    """Characters of the commonest sequence, spaces included, times how often it comes; the first of equals counts.

    Args:
        enough: where even the longest would not exceed this, that bound is returned instead.
    """
    ordered = np.sort(sequences)
    edges = np.concatenate((_NONE, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)]))
    counts = edges[1:] - edges[:-1]
    most = int(counts.max())
    spans = _span_lengths(lengths, size)
    bound = (int(spans.max()) + size - 1) * most
    if bound <= enough:
        return bound
    first = int(np.isin(sequences, ordered[edges[:-1][counts == most]]).argmax())
    return (int(spans[first]) + size - 1) * most


def _covered_characters(sequences: Hashes, lengths: NDArray[np.int64], size: int) -> int:
    """Characters of all words in any sequence that came before.

    No rule on sequences of this size or a greater one can count more: it counts some of these words, each once.
    """
    order = np.argsort(sequences, kind="stable")
    again = order[1:][sequences[order[1:]] == sequences[order[:-1]]]
    if len(again) == 0:
        return 0
    changes = np.zeros(len(lengths) + 1, np.int64)
    changes[again] += 1
    changes[again + size] -= 1
    return int(lengths[np.cumsum(changes[:-1]) > 0].sum())


def _repeated_characters(sequences: Hashes, lengths: NDArray[np.int64], size: int) -> int:
    """Characters of sequences that came before, read from left to right without overlap."""
    order = np.argsort(sequences, kind="stable")
    same = sequences[order[1:]] == sequences[order[:-1]]
    several = np.zeros(len(order), bool)
    several[1:] |= same
    several[:-1] |= same
    places = np.sort(order[several])  # sequences that come once change nothing
    spans = _span_lengths(lengths, size)[places].tolist()
    seen: set[int] = set()
    free = characters = 0
    for place, sequence, span in zip(places.tolist(), sequences[places].tolist(), spans, strict=True):
        if place < free:
            continue
        if sequence in seen:
            characters += span
            free = place + size
        else:
            seen.add(sequence)
    return characters
