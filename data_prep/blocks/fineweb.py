"""Pages whose lines are short, unpunctuated, repeated or list-like: Penedo et al. (2024), section 3.6.

The rules in their order, and to the last detail those of datatrove's FineWebQualityFilter.
"""

from __future__ import annotations

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.text import TERMINAL_PUNCTUATION

from data_prep.blocks.config import FineWebConfig
from data_prep.blocks.gopher_repetition import repeated
from data_prep.blocks.words import splitter
from data_prep.ledger import ReasonKeeper


class FineWeb(BaseFilter):
    """Drops by the statistics of lines, naming the first rule that a page breaks."""

    name = "fineweb"

    def __init__(self, config: FineWebConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or drop with the reason of datatrove's filter."""
        config, text = self.config, doc.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return False, "empty"
        if sum(line[-1] in TERMINAL_PUNCTUATION for line in lines) / len(lines) < config.min_punctuated_line_fraction:
            return False, "line_punct_ratio"
        short = sum(length <= config.short_line_characters for length in map(len, lines))
        if short / len(lines) > config.max_short_line_fraction:
            return False, "short_line_ratio"
        line_ends = text.count("\n")
        if repeated(lines)[1] / (len(text) - line_ends) > config.max_duplicate_character_fraction:
            return False, "char_dup_ratio"
        words = splitter(doc.metadata.get("language", "en")).count(text)
        if not words or line_ends / words > config.max_newline_word_ratio:
            return False, "list_ratio"
        return True
