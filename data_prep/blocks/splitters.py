"""Splitters into words and sentences: one that remembers what spaCy's rules made of every piece, and datatrove's own.

White space cuts a text into pieces, and spaCy splits each of them on its own; so what a piece becomes is remembered,
and a page mostly meets pieces that were seen before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

from data_prep.blocks.kinds import kind_of, sentences_in
from data_prep.blocks.spacy_rules import SpacyRules

# Scripts written without spaces: each character counts as a word, or a page would be a handful of huge ones.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSPACED = regex.compile(f"[{UNSPACED}]")
_PLAIN = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]{{1,1000}}|\S", regex.V1)

# Numbers and addresses never end, so memory lasts for two generations of so many pieces, over all languages of the
# process; about 250 bytes a piece, and a long one counts for several.
_GENERATION = 200_000
_LONG_CHARACTERS = 64


class Split(NamedTuple):
    """Words in order, and one byte a word that says of what kind it is (data_prep/blocks/kinds.py)."""

    words: list[str]
    kinds: bytes


class Splitter(Protocol):
    """Splits texts of one language."""

    def split(self, text: str) -> Split:
        """The words and their kinds; asked again for the same text, the same answer without work."""

    def count(self, text: str) -> int:
        """How many words a text has."""

    def sentences(self, line: str) -> int:
        """How many sentences a line has, at least one."""


class Rules(Protocol):
    """What becomes of a piece of text without white space."""

    spaced: list[str]

    def tokens(self, piece: str) -> tuple[str, ...]:
        """The words of a piece; joined they are the piece again."""


class AnyScript:
    """Rules for languages that the machine has no splitter for: spaCy's for any language, characters where unspaced."""

    spaced: list[str] = []

    def __init__(self) -> None:
        self._rules = SpacyRules("xx")

    def tokens(self, piece: str) -> tuple[str, ...]:
        """The words of a piece."""
        return tuple(_PLAIN.findall(piece)) if _UNSPACED.search(piece) else self._rules.tokens(piece)


class _Generations:
    """Counts the pieces that all splitters remember, and lets them forget together."""

    def __init__(self) -> None:
        self.members: list[_Memory] = []
        self.pieces = 0

    def age(self) -> None:
        """Keep what the last generation met, forget what only the one before it met."""
        for member in self.members:
            member.age()
        self.pieces = 0


class _Memory(dict[str, bytes]):
    """Piece of text -> the kinds of its words; a piece that is new is split on being asked for.

    Attributes:
        cuts: the words of pieces that have several; a piece of one word is that word.
    """

    def __init__(self, rules: Rules, generations: _Generations) -> None:
        super().__init__()
        self.rules, self.generations = rules, generations
        self.cuts: dict[str, tuple[str, ...]] = {}
        self.earlier: dict[str, bytes] = {}
        self.earlier_cuts: dict[str, tuple[str, ...]] = {}
        generations.members.append(self)

    def __missing__(self, piece: str) -> bytes:
        kinds = self.earlier.get(piece)
        if kinds is None:
            words = self.rules.tokens(piece)
            kinds = bytes(map(kind_of, words))
        else:
            words = self.earlier_cuts.get(piece, (piece,))
        if len(kinds) > 1:
            self.cuts[piece] = words
        self.generations.pieces += 1 + len(piece) // _LONG_CHARACTERS
        self[piece] = kinds
        return kinds

    def age(self) -> None:
        """Begin a new generation."""
        self.earlier, self.earlier_cuts = dict(self), self.cuts
        self.clear()
        self.cuts = {}


_GENERATIONS = _Generations()


class RememberingSplitter:
    """Splits as a blank spaCy model does, and counts sentences as its sentencizer does.

    Args:
        rules: of the language.
        stock: counts the sentences where datatrove does not leave that to spaCy.
    """

    def __init__(self, rules: Rules, stock: WordTokenizer | None = None) -> None:
        self._memory = _Memory(rules, _GENERATIONS)
        self._stock = stock
        self._spaced = rules.spaced
        alternatives = "|".join(map(re.escape, sorted(rules.spaced, key=len, reverse=True)))
        self._joint = re.compile(rf"\S*(?:{alternatives})\S*|\S+" if rules.spaced else r"\S+")
        self._runs = re.compile(rf"{self._joint.pattern}|\s+")
        self._last = ("", Split([], b""))

    def split(self, text: str) -> Split:
        """The words and their kinds; asked again for the same text, the same answer without work."""
        if text == self._last[0]:
            return self._last[1]
        if _GENERATIONS.pieces > _GENERATION:
            _GENERATIONS.age()
        pieces = self._pieces(text)
        kinds = list(map(self._memory.__getitem__, pieces))
        cuts = self._memory.cuts
        words: list[str] = []
        for piece, kind in zip(pieces, kinds, strict=True):
            if len(kind) == 1:
                words.append(piece)
            else:
                words.extend(cuts[piece])
        split = Split(words, b"".join(kinds))
        self._last = (text, split)
        return split

    def count(self, text: str) -> int:
        """How many words a text has."""
        if text == self._last[0]:
            return len(self._last[1].words)
        return sum(map(len, map(self._memory.__getitem__, self._pieces(text))))

    def sentences(self, line: str) -> int:
        """How many sentences a line has."""
        if self._stock is not None:
            return max(1, len(self._stock.span_tokenize(line)))
        pieces = self._pieces(line)
        if " ".join(pieces) == line:
            return sentences_in(b"".join(map(self._memory.__getitem__, pieces)))
        return sentences_in(b"".join(self._kinds_with_space(line)))

    def _pieces(self, text: str) -> list[str]:
        if self._spaced and any(rule in text for rule in self._spaced):
            return self._joint.findall(text)
        return text.split()

    def _kinds_with_space(self, line: str) -> Iterator[bytes]:
        """Kinds of a line's words, and of spaCy's tokens of white space: what is left of a run after one space."""
        for found in self._runs.finditer(line):
            run = found[0]
            if not run.isspace():
                yield self._memory[run]
            elif run != " " or found.start() == 0:
                yield bytes([kind_of(" ")])


class StockSplitter:
    """datatrove's own splitter, for languages that a segmenter cuts into words."""

    def __init__(self, stock: WordTokenizer) -> None:
        self._stock = stock
        self._last = ("", Split([], b""))

    def split(self, text: str) -> Split:
        """The words and their kinds; asked again for the same text, the same answer without work."""
        if text != self._last[0]:
            words = list(self._stock.word_tokenize(text))
            self._last = (text, Split(words, bytes(map(kind_of, words))))
        return self._last[1]

    def count(self, text: str) -> int:
        """How many words a text has."""
        return len(self.split(text).words)

    def sentences(self, line: str) -> int:
        """How many sentences datatrove finds."""
        return max(1, len(self._stock.span_tokenize(line)))
