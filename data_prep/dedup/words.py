"""Hashes of words and of word n-grams, for whole texts at once: the words themselves are never made.

A word is a run of letters, digits and marks, lower-cased; a character of a script that is written without spaces is
a word of its own. Hashes are polynomials modulo 2**64 over code points (Karp & Rabin 1987), read off prefix sums,
so that a text costs a dozen array operations whatever its number of words.
"""

from __future__ import annotations

from functools import cache
from typing import NewType

import numpy as np
import numpy.typing as npt
import regex

from data_prep.dedup.runs import Hashes

WordHashes = NewType("WordHashes", Hashes)

_PIECE = 1 << 17  # code points at a time: what a huge page costs in memory
_OTHER, _WORD, _ALONE = 0, 1, 2
_PLANES = 0x20000  # beyond: ideographs (planes 2 and 3), then nothing that is a word
_IDEOGRAPHS_END = 0x40000
_WORDS = regex.compile(r"[\p{L}\p{N}\p{M}]+")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+")
_IN_WORDS, _OVER_WORDS = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95  # odd, so they have inverses


def word_hashes(text: str) -> WordHashes:
    """One hash a word, in order; two words have the same one if they are alike in lower case."""
    if len(text) <= _PIECE:
        return WordHashes(_hash_piece(text))
    parts, begin = [], 0
    while begin < len(text):
        end = min(begin + _PIECE, len(text))
        if end < len(text):  # cut between words, unless a "word" fills the piece
            end = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end)) + 1 or end
        parts.append(_hash_piece(text[begin:end]))
        begin = end
    return WordHashes(np.concatenate(parts))


def ngram_hashes(words: WordHashes, length: int) -> Hashes:
    """One hash for every run of `length` words; a shorter text is one run, an empty one has none."""
    return mixed(Rolling(words).all(min(length, len(words)))) if len(words) else words


class Rolling:
    """Hashes of runs of words of any length and place; only their upper bits are good.

    Args:
        words: of the text; at least one.
    """

    def __init__(self, words: WordHashes) -> None:
        self._count = len(words)
        power, self._inverse = _powers(_OVER_WORDS, _capacity(self._count))
        self._sums = np.zeros(self._count + 1, np.uint64)
        np.add.accumulate(words * power[: self._count], out=self._sums[1:])

    def all(self, length: int) -> Hashes:
        """Of every run of so many words; the text has as many."""
        return (self._sums[length:] - self._sums[:-length]) * self._inverse[: self._count - length + 1]

    def some(self, length: int, places: npt.NDArray[np.int64]) -> Hashes:
        """Of the runs of so many words that begin at these places; runs over the end of the text are left out."""
        places = places[places + length <= self._count]
        return (self._sums[places + length] - self._sums[places]) * self._inverse[places]


def mixed(hashes: Hashes) -> Hashes:
    """The hashes with every bit depending on every other (MurmurHash3's finaliser)."""
    hashes = hashes ^ (hashes >> np.uint64(33))
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes


def _hash_piece(text: str) -> Hashes:
    if not text:
        return np.zeros(0, np.uint64)
    if text.isascii():
        codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        begins, ends = _words_between(_ascii_classes().take(codes))
        values = _ascii_lower().take(codes)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        begins, ends = _all_words(_classes().take(codes))
        values = _lower().take(codes)
    power, inverse = _powers(_IN_WORDS, _capacity(len(codes)))
    values *= power[: len(codes)]
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.add.accumulate(values, out=sums[1:])
    return (sums[ends] - sums[begins]) * inverse[begins]


def _words_between(classes: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the words of several characters begin and end."""
    inside = np.zeros(len(classes) + 2, np.bool_)
    np.equal(classes, _WORD, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[::2], edges[1::2]


def _all_words(classes: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Those, and characters that are words, in order."""
    begins, ends = _words_between(classes)
    alone = np.flatnonzero(classes == _ALONE)
    if not len(alone):
        return begins, ends
    begins, ends = np.concatenate([begins, alone]), np.concatenate([ends, alone + 1])
    order = np.argsort(begins, kind="stable")
    return begins[order], ends[order]


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """The class of every code point."""
    table = np.full(0x110000, _OTHER, np.uint8)
    characters = "".join(map(chr, range(_PLANES)))
    for pattern, kind in ((_WORDS, _WORD), (_UNSPACED, _ALONE)):
        for match in pattern.finditer(characters):
            table[match.start() : match.end()] = kind
    table[_PLANES:_IDEOGRAPHS_END] = _ALONE
    return table


@cache
def _lower() -> Hashes:
    """Every code point in lower case; of the few that become several, the first. Faster than str.lower."""
    table = np.arange(0x110000, dtype=np.uint64)
    table[:_PLANES] = [ord(chr(code).lower()[0]) for code in range(_PLANES)]
    return table


@cache
def _ascii_classes() -> npt.NDArray[np.uint8]:
    return np.array([_WORD if chr(code).isalnum() else _OTHER for code in range(128)], np.uint8)


@cache
def _ascii_lower() -> Hashes:
    return np.array([ord(chr(code).lower()) for code in range(128)], np.uint64)


def _capacity(count: int) -> int:
    """The next power of two, so that few tables of powers are made."""
    return max(1 << 14, 1 << (count - 1).bit_length())


@cache
def _powers(base: int, count: int) -> tuple[Hashes, Hashes]:
    """The powers 0 to count - 1 of the base, and those of its inverse modulo 2**64."""
    tables = []
    for factor in (base, pow(base, -1, 1 << 64)):
        table = np.full(count, factor, np.uint64)
        table[0] = 1
        tables.append(np.multiply.accumulate(table))
    return tables[0], tables[1]
