"""Word n-grams of evaluation sets, to be found in texts: sorted hashes behind a table that answers most questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.dedup.runs import Hashes
from data_prep.dedup.words import Rolling, WordHashes

Sources = npt.NDArray[np.int32]

_SLOTS_AN_ENTRY = 16  # so that a filter lets one n-gram in sixteen pass in vain, at most
_FACTORS = (1, 0x9E3779B97F4A7C15)


class Overlap(NamedTuple):
    """What a text shares with the index.

    Attributes:
        ngrams: how many different n-grams.
        sources: the numbers of the sets they come from, ascending.
    """

    ngrams: int
    sources: list[int]


class NgramIndex:
    """Made once, then asked for every document.

    Nearly all n-grams of a page are in no evaluation set. So the first words of each go through two filters, then are
    looked for among the first words of all entries; what is left is compared whole.

    Args:
        items: (words, number of the set) of every piece of evaluation text.
        ngram: words of an n-gram; an item with fewer is one n-gram as a whole.
        min_words: an item with fewer is left out.
    """

    def __init__(self, items: Iterable[tuple[WordHashes, int]], ngram: int, min_words: int) -> None:
        self._first = min(ngram, min_words)
        firsts: list[Hashes] = [np.zeros(0, np.uint64)]
        entries: dict[int, list[tuple[Hashes, Sources]]] = {}
        for words, source in items:
            if len(words) >= min_words:
                length = min(len(words), ngram)
                rolling = Rolling(words)
                hashes = rolling.all(length)
                entries.setdefault(length, []).append((hashes, np.full(len(hashes), source, np.int32)))
                firsts.append(rolling.all(self._first)[: len(hashes)])
        self._tables = {length: _sorted(columns) for length, columns in sorted(entries.items())}
        self._firsts = np.unique(np.concatenate(firsts))
        self._filters = [_Filter(self._firsts, factor) for factor in _FACTORS]

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._tables.values())

    def __deepcopy__(self, memo: dict[int, Any]) -> NgramIndex:
        """Nothing changes it, and it may be large: copies of a block share it."""
        return self

    def overlap(self, words: WordHashes) -> Overlap:
        """What a text has in common with the evaluation sets."""
        count, sources = 0, [np.zeros(0, np.int32)]
        if len(words) >= self._first:
            rolling = Rolling(words)
            places = self._begins(rolling.all(self._first))
            for length, (hashes, numbers) in self._tables.items() if len(places) else ():
                found = np.unique(_places_of(rolling.some(length, places), hashes)[1])
                count += len(found)
                sources.append(numbers[found])
        return Overlap(count, np.unique(np.concatenate(sources)).tolist())

    def _begins(self, firsts: Hashes) -> npt.NDArray[np.int64]:
        """Where a text has the first words of an entry."""
        maybe = np.flatnonzero(self._filters[0].has(firsts))
        for more in self._filters[1:]:
            maybe = maybe[more.has(firsts[maybe])]
        return maybe[_places_of(firsts[maybe], self._firsts)[0]] if len(maybe) else maybe


class _Filter:
    """Says of most hashes that are not in a set that they are not; a Bloom filter with one hash function."""

    def __init__(self, hashes: Hashes, factor: int) -> None:
        bits = max(10, (len(hashes) * _SLOTS_AN_ENTRY - 1).bit_length())
        self._factor, self._shift = np.uint64(factor), np.uint64(64 - bits)
        self._slots = np.zeros(1 << bits, np.bool_)
        self._slots[(hashes * self._factor) >> self._shift] = True

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Whether a hash may be in the set."""
        return self._slots.take(((hashes * self._factor) >> self._shift).view(np.int64))


def _sorted(columns: list[tuple[Hashes, Sources]]) -> tuple[Hashes, Sources]:
    """The entries by hash, each once, with the first of its sources."""
    hashes = np.concatenate([hashes for hashes, _ in columns])
    sources = np.concatenate([sources for _, sources in columns])
    hashes, places = np.unique(hashes, return_index=True)
    return hashes, sources[places]


def _places_of(wanted: Hashes, among: Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """(which of the hashes are among the sorted ones, the places of those)."""
    places = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    found = among[places] == wanted
    return found, places[found]
