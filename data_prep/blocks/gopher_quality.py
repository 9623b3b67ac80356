"""Pages that are no running text: Rae et al. (2021), "Scaling Language Models", appendix A1.1.

The rules in their order, and to the last detail those of datatrove's GopherQualityFilter. Its stop words are English;
here they are those of the page's language (stop_words.yaml).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import compress
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import GopherQualityConfig
from data_prep.blocks.kinds import symbol_flags, symbols, with_letters
from data_prep.blocks.splitters import Split
from data_prep.blocks.words import splitter
from data_prep.ledger import ReasonKeeper
from kit.config import read_yaml

_SOME_WORDS = 100


class GopherQuality(BaseFilter):
    """Drops by length, symbols, bullet lists and stop words, naming the first rule that a page breaks."""

    name = "gopher_quality"

    def __init__(self, config: GopherQualityConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or drop with the reason of datatrove's filter."""
        language = doc.metadata.get("language", "en")
        split = splitter(language).split(doc.text)
        reason = self._size(split) or self._symbols(doc.text, len(split.words)) or self._lines(doc.text)
        reason = reason or self._words(split, language)
        return (False, reason) if reason else True

    def _size(self, split: Split) -> str | None:
        config = self.config
        words, symbol_words = len(split.words), symbols(split.kinds)
        real = words - symbol_words
        if real < config.min_words or not words:
            return "gopher_short_doc"
        if real > config.max_words:
            return "gopher_long_doc"
        characters = sum(map(len, split.words))
        if symbol_words:
            characters -= sum(map(len, compress(split.words, symbol_flags(split.kinds))))
        if real and 0 < config.min_mean_word_length > characters / real:
            return "gopher_below_avg_threshold"
        if real and 0 < config.max_mean_word_length < characters / real:
            return "gopher_above_avg_threshold"
        return None

    def _symbols(self, text: str, words: int) -> str | None:
        limit = self.config.max_symbol_word_ratio
        if 0 < limit < text.count("#") / words:
            return "gopher_too_many_hashes"
        if 0 < limit < (text.count("...") + text.count("…")) / words:
            return "gopher_too_many_ellipsis"
        return None

    def _lines(self, text: str) -> str | None:
        bullets, ellipses = self.config.max_bullet_line_fraction, self.config.max_ellipsis_line_fraction
        lines = text.splitlines()
        # Most pages have too few of these signs for the lines to be looked at.
        if 0 < bullets < (text.count("•") + text.count("-")) / len(lines) and bullets < _share(lines, _is_bullet):
            return "gopher_too_many_bullets"
        if 0 < ellipses < (text.count("...") + text.count("…")) / len(lines) and ellipses < _share(lines, _trails_off):
            return "gopher_too_many_end_ellipsis"
        return None

    def _words(self, split: Split, language: str) -> str | None:
        if with_letters(split.kinds) / len(split.words) < self.config.min_alphabetic_word_fraction:
            return "gopher_below_alpha_threshold"
        wanted, known = self.config.min_stop_words, stop_words().get(language)
        if not known:  # no list, no rule: a foreign list would drop every page of the language
            return None
        if len(known.intersection(split.words[:_SOME_WORDS])) < wanted > len(known.intersection(split.words)):
            return "gopher_enough_stop_words"
        return None


def _share(lines: list[str], rule: Callable[[str], bool]) -> float:
    return sum(map(rule, lines)) / len(lines)


def _is_bullet(line: str) -> bool:
    return line.lstrip().startswith(("•", "-"))


def _trails_off(line: str) -> bool:
    return line.rstrip().endswith(("...", "…"))


@cache
def stop_words() -> dict[str, frozenset[str]]:
    """Stop words by language, from the file beside this one."""
    return {
        language: frozenset(words) for language, words in read_yaml(Path(__file__).with_name("stop_words.yaml")).items()
    }
