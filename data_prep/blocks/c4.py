"""Lines and pages by C4's rules: Raffel et al. (2020), "Exploring the Limits of Transfer Learning", section 2.2.

The rules in their order, and to the last detail those of datatrove's C4QualityFilter, which are the published code's.
Sentences are counted last and only until there are enough: each kept line counts its own, whenever that happens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import C4Config
from data_prep.blocks.words import splitter
from data_prep.ledger import ReasonKeeper

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_END_PUNCTUATION = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SUSPICIOUS = ("lorem ipsum", "javascript", "{", "[", *_POLICY)


class C4(BaseFilter):
    """Leaves lines out of the text and drops pages, naming the first rule that a page breaks."""

    name = "c4"

    def __init__(self, config: C4Config) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep with the lines that may stay, or drop with the reason of datatrove's filter and the text untouched."""
        lines = self._lines(doc.text)
        lowered = doc.text.lower()
        if any(sign in lowered for sign in _SUSPICIOUS):
            kept: list[str] = []
            for line in lines:
                verdict = self._judge(line)
                if isinstance(verdict, str):
                    return False, verdict
                if verdict:
                    kept.append(line)
        else:
            kept = list(lines)
        if not self._enough_sentences(kept, doc.metadata.get("language", "en")):
            return False, "too_few_sentences"
        doc.text = "\n".join(kept).strip()
        return True

    def _lines(self, text: str) -> Iterator[str]:
        """Lines with enough words, none of them endless, without citation marks."""
        config = self.config
        for line in text.splitlines():
            line = line.strip()
            words = line.split(None, config.min_words_per_line)
            if len(line) > config.max_word_length and max(map(len, line.split())) > config.max_word_length:
                continue
            if "[" in line:
                line = _CITATION.sub("", line)
            if config.drop_lines_without_punctuation and (not line.endswith(_END_PUNCTUATION) or line.endswith("...")):
                continue
            if len(words) >= config.min_words_per_line:
                yield line

    def _judge(self, line: str) -> bool | str:
        """Whether a line may stay, or why the page may not."""
        config, lowered = self.config, line.lower()
        if "lorem ipsum" in lowered:
            return "lorem_ipsum"
        if config.drop_lines_with_javascript and "javascript" in lowered:
            return False
        if config.drop_pages_with_curly_brackets and "{" in line:
            return "curly_bracket"
        return not any(phrase in lowered for phrase in _POLICY)

    def _enough_sentences(self, lines: list[str], language: str) -> bool:
        missing = self.config.min_sentences
        sentences = splitter(language).sentences
        for line in lines:
            if missing <= 0:
                break
            missing -= sentences(line)
        return missing <= 0
