"""spaCy's tokenizer for one piece of text without white space, in plain Python and without its vocabulary.

spaCy makes a lexeme with some twenty attributes of every new word, which costs more than the
splitting, and keeps its string for ever. Its rules are regular expressions and a table of exceptions; here they are
applied as `Tokenizer._tokenize` applies them. A piece of letters alone, the commonest by far, needs no expression at
all where `_needs_other_than_letters` shows that none of the language's could match in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_NOTHING: dict[str, tuple[str, ...]] = {}
# Beyond this only the end is searched for a suffix; the search would else start at every character of a long run.
_LONG = 96
_TAIL = 64
# And a piece beyond this length is no text in any language; over such ones spaCy takes quadratic time.
_ENDLESS = 2000


@contextmanager
def _without_torch() -> Iterator[None]:
    """thinc imports torch wherever it is installed: seconds for a tokenizer that has no use for it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


@contextmanager
def _classes_once() -> Iterator[None]:
    """French names the class of all letters some hundred times in one pattern, and the compiler sorts each anew."""
    plain = _compiler._optimize_charset
    known: dict[Any, tuple[list[Any], bool]] = {}

    def once(charset: list[Any], *rest: Any) -> tuple[list[Any], bool]:
        key = (tuple(charset), *map(id, rest))
        if key not in known:
            known[key] = plain(charset, *rest)
        done, cased = known[key]
        return list(done), cased

    _compiler._optimize_charset = once
    try:
        yield
    finally:
        _compiler._optimize_charset = plain


class SpacyRules:
    """The tokenizer of a blank spaCy model.

    Attributes:
        spaced: exceptions that contain a space, such as "EE. UU.": the only rules that reach beyond a piece.

    Raises:
        ImportError: spaCy lacks a package for the language.
        ValueError: the language has a tokenizer of its own kind.
    """

    def __init__(self, language: str) -> None:
        with _without_torch():
            import spacy
            from spacy.attrs import ORTH
            from spacy.tokenizer import Tokenizer

        with _classes_once():
            self._model = spacy.blank(language)
        tokenizer = self._model.tokenizer
        if type(tokenizer) is not Tokenizer:
            raise ValueError(f"spaCy splits {language!r} with {type(tokenizer).__name__}")
        self._prefix, self._suffix = tokenizer.prefix_search, tokenizer.suffix_search
        self._infixes = tokenizer.infix_finditer
        self._whole: list[Callable[[str], object]] = [
            match for match in (tokenizer.token_match, tokenizer.url_match) if match is not None
        ]
        self._token_match = tokenizer.token_match
        self._exceptions = {
            chunk: tuple(str(token[ORTH]) for token in tokens) for chunk, tokens in tokenizer.rules.items()
        }
        self.spaced = [rule for rule in sorted(self._exceptions) if " " in rule.strip()]
        searches = [search for search in (self._prefix, self._suffix, self._infixes) if search is not None]
        self._letters_stay_whole = all(_needs_other_than_letters(search.__self__.pattern) for search in searches)
        self._sequences = self._exception_sequences()

    def tokens(self, piece: str) -> tuple[str, ...]:
        """The tokens of a piece; joined they are the piece again.

        Args:
            piece: without white space, or with it only as part of one of `spaced`.
        """
        found = self._exceptions.get(piece)
        if found is None:
            if self._letters_stay_whole and piece.isalpha():
                return (piece,)
            if len(piece) > _ENDLESS:
                return tuple(piece[start : start + _ENDLESS] for start in range(0, len(piece), _ENDLESS))
            found = tuple(self._split(piece, self._exceptions))
        return self._by_spacy(piece) if " " in piece or self._holds_exception(found) else found

    def _split(self, piece: str, exceptions: dict[str, tuple[str, ...]]) -> list[str]:
        if piece in exceptions:
            return list(exceptions[piece])
        middle, tokens, suffixes = self._peel(piece, exceptions)
        if middle:
            tokens.extend(exceptions[middle] if middle in exceptions else self._split_middle(middle))
        suffixes.reverse()
        return tokens + suffixes

    def _peel(self, text: str, exceptions: dict[str, tuple[str, ...]]) -> tuple[str, list[str], list[str]]:
        """What remains between prefixes and suffixes, the prefixes, and the suffixes from the outermost."""
        prefixes: list[str] = []
        suffixes: list[str] = []
        while text and text not in exceptions:
            if (self._letters_stay_whole and text.isalpha()) or (self._token_match and self._token_match(text)):
                break
            before = self._prefix_length(text)
            if before and text[before:] in exceptions:
                prefixes.append(text[:before])
                text = text[before:]
                break
            after = self._suffix_length(text[before:])
            if after and text[:-after] in exceptions:
                suffixes.append(text[-after:])
                text = text[:-after]
                break
            if not before and not after:
                break
            if before + after > len(text):  # one character may be both
                after = 0
            if before:
                prefixes.append(text[:before])
            if after:
                suffixes.append(text[-after:])
            text = text[before : len(text) - after]
        return text, prefixes, suffixes

    def _split_middle(self, text: str) -> list[str]:
        if (self._letters_stay_whole and text.isalpha()) or any(match(text) for match in self._whole):
            return [text]
        tokens: list[str] = []
        start = 0
        for infix in self._infixes(text) if self._infixes else ():
            begin, end = infix.span()
            if begin == 0:
                continue
            if begin != start:
                tokens.append(text[start:begin])
            if begin != end:
                tokens.append(text[begin:end])
            start = end
        if start < len(text):
            tokens.append(text[start:])
        return tokens

    def _prefix_length(self, text: str) -> int:
        found = self._prefix(text) if self._prefix else None
        return found.end() - found.start() if found else 0

    def _suffix_length(self, text: str) -> int:
        if self._suffix is None:
            return 0
        if len(text) > _LONG:
            found = self._suffix(text[-_TAIL:])
            if found is None or found.start() >= _TAIL // 2:
                return found.end() - found.start() if found else 0
        found = self._suffix(text)
        return found.end() - found.start() if found else 0

    def _exception_sequences(self) -> dict[str, list[tuple[str, ...]]]:
        """First token -> what exceptions become without being exceptions; spaCy looks for those in its result.

        Only those that an affix or an infix would cut, as in spaCy.
        """
        sequences: dict[str, list[tuple[str, ...]]] = {}
        for rule, tokens in self._exceptions.items():
            if not rule.strip() or " " in rule:
                continue
            if self._prefix_length(rule) or self._suffix_length(rule) or any(self._infixes(rule)):
                found = tuple(self._split(rule, _NOTHING))
                if found != tokens:
                    sequences.setdefault(found[0], []).append(found)
        return sequences

    def _holds_exception(self, tokens: tuple[str, ...]) -> bool:
        sequences = self._sequences
        for start, token in enumerate(tokens):
            if token in sequences:
                for sequence in sequences[token]:
                    if tokens[start : start + len(sequence)] == sequence:
                        return True
        return False

    def _by_spacy(self, piece: str) -> tuple[str, ...]:
        with self._model.memory_zone():
            return tuple(token.text for token in self._model.tokenizer(piece))


def _needs_other_than_letters(pattern: str) -> bool:
    """Whether every match of the expression takes or looks at a character that is no letter, whatever the text."""
    return _sequence_needs(_parser.parse(pattern))


def _sequence_needs(sequence: Any) -> bool:
    return any(_item_needs(kind, value) for kind, value in sequence)


def _item_needs(kind: Any, value: Any) -> bool:
    """One element of a parsed expression; False where it cannot be told."""
    if kind is _constants.LITERAL:
        return not chr(value).isalpha()
    if kind is _constants.IN:
        return not any(_may_be_letter(*member) for member in value)
    if kind is _constants.BRANCH:
        return all(_sequence_needs(branch) for branch in value[1])
    if kind is _constants.SUBPATTERN:
        return _sequence_needs(value[3])
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        return bool(value[0] > 0 and _sequence_needs(value[2]))
    return kind is _constants.ASSERT and _sequence_needs(value[1])


def _may_be_letter(kind: Any, value: Any) -> bool:
    if kind is _constants.LITERAL:
        return chr(value).isalpha()
    if kind is _constants.RANGE:
        return _has_letters(*value)
    return not (kind is _constants.CATEGORY and value in (_constants.CATEGORY_DIGIT, _constants.CATEGORY_SPACE))


@cache
def _has_letters(first: int, last: int) -> bool:
    return re.search(r"[^\W\d_]", "".join(map(chr, range(first, last + 1)))) is not None
