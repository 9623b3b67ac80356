"""Quality filters: datatrove's, one instance a language, because word and sentence splitting depend on it.

Gopher: Rae et al. (2021), "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A1.
C4: Raffel et al. (2020), "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2.2.
FineWeb: Penedo et al. (2024), "The FineWeb Datasets", section 3.6. Words come from spaCy's blank models, whose rules
lie inside the package, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.utils.text import split_into_sentences

from data_prep.blocks.config import C4Config, FineWebConfig, GopherQualityConfig, GopherRepetitionConfig
from data_prep.blocks.words import word_splitter
from data_prep.ledger import ReasonKeeper
from kit.config import read_yaml
from kit.errors import UserError


class PerLanguage(BaseFilter):
    """Sends a document to the filter of its language (`metadata["language"]`).

    Args:
        name: the block's name.
        build: makes the filter of one language, which must be one of `languages`.
        languages: the languages that may occur.
    """

    name = "per language"

    def __init__(self, name: str, build: Callable[[str], BaseFilter], languages: list[str]) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.name = name
        self.filters = {language: build(language) for language in languages}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """What the language's own filter says."""
        verdict: bool | tuple[bool, str] = self.filters[doc.metadata["language"]].filter(doc)
        return verdict


def gopher_repetition(config: GopherRepetitionConfig, languages: list[str]) -> BaseFilter:
    """Pages that repeat their own lines, paragraphs or word sequences."""

    def build(language: str) -> BaseFilter:
        return GopherRepetitionFilter(
            dup_line_frac=config.duplicate_line_fraction,
            dup_para_frac=config.duplicate_paragraph_fraction,
            dup_line_char_frac=config.duplicate_line_character_fraction,
            dup_para_char_frac=config.duplicate_paragraph_character_fraction,
            top_n_grams=tuple(sorted(config.top_ngrams.items())),
            dup_n_grams=tuple(sorted(config.duplicate_ngrams.items())),
            language=word_splitter(language),
        )

    return PerLanguage("gopher_repetition", build, languages)


def gopher_quality(config: GopherQualityConfig, languages: list[str]) -> BaseFilter:
    """Pages that are no running text: length, symbols, bullet lists, stop words of the page's language."""

    def build(language: str) -> BaseFilter:
        return GopherQualityFilter(
            min_doc_words=config.min_words,
            max_doc_words=config.max_words,
            min_avg_word_length=config.min_mean_word_length,
            max_avg_word_length=config.max_mean_word_length,
            max_symbol_word_ratio=config.max_symbol_word_ratio,
            max_bullet_lines_ratio=config.max_bullet_line_fraction,
            max_ellipsis_lines_ratio=config.max_ellipsis_line_fraction,
            max_non_alpha_words_ratio=config.min_alphabetic_word_fraction,
            # no list, no rule: a foreign list would drop every page of the language
            min_stop_words=config.min_stop_words if language in stop_words() else 0,
            stop_words=stop_words().get(language, []),
            language=word_splitter(language),
        )

    return PerLanguage("gopher_quality", build, languages)


def c4(config: C4Config, languages: list[str]) -> BaseFilter:
    """Lines and pages by C4's rules; changes the text by leaving lines out."""

    def build(language: str) -> BaseFilter:
        return _ThriftyC4(
            config.min_sentences,
            filter_no_terminal_punct=config.drop_lines_without_punctuation,
            min_words_per_line=config.min_words_per_line,
            max_word_length=config.max_word_length,
            filter_javascript=config.drop_lines_with_javascript,
            filter_curly_bracket=config.drop_pages_with_curly_brackets,
            language=word_splitter(language),
        )

    return PerLanguage("c4", build, languages)


class _ThriftyC4(C4QualityFilter):
    """C4's rules with the sentences counted last, and only until there are enough: most of its time went there.

    The decision is the same: each kept line counts its own sentences, whenever that happens.
    """

    def __init__(self, min_sentences: int, **rules: Any) -> None:
        super().__init__(min_num_sentences=-1, **rules)
        self.min_sentences = min_sentences

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Apply the line and page rules, then count."""
        before = doc.text
        verdict: bool | tuple[bool, str] = super().filter(doc)
        if verdict is not True:
            return verdict
        missing = self.min_sentences
        for line in doc.text.split("\n") if doc.text else []:
            if missing <= 0:
                break
            missing -= len(split_into_sentences(line, self.language))
        if missing > 0:
            doc.text = before
            return False, "too_few_sentences"
        return True


def fineweb(config: FineWebConfig, languages: list[str]) -> BaseFilter:
    """Pages whose lines are short, unpunctuated, repeated or list-like."""

    def build(language: str) -> BaseFilter:
        return FineWebQualityFilter(
            line_punct_thr=config.min_punctuated_line_fraction,
            short_line_thr=config.max_short_line_fraction,
            short_line_length=config.short_line_characters,
            char_duplicates_ratio=config.max_duplicate_character_fraction,
            new_line_ratio=config.max_newline_word_ratio,
            language=word_splitter(language),
        )

    return PerLanguage("fineweb", build, languages)


@lru_cache(maxsize=1)
def stop_words() -> dict[str, list[str]]:
    """Stop words by language, from the file beside this one."""
    return read_yaml(Path(__file__).with_name("stop_words.yaml"))


def check_languages(languages: list[str]) -> None:
    """Fail before the run starts, not after an hour, where a language has no word splitter on this machine.

    Raises:
        UserError: names the language.
    """
    for language in languages:
        try:
            word_splitter(language).word_tokenize("a")
        except (ValueError, ImportError, OSError) as error:
            raise UserError(
                f"languages.keep: no word splitter for {language!r} ({error})",
                expected="ISO 639-1 codes of languages that spaCy's blank models split, such as en, fr, de, es, it",
                action="remove the language, or install the package that the message names",
            ) from error
