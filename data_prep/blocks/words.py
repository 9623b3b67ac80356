"""Words and sentences, as datatrove's spaCy splitters find them, at a fraction of their time.

The thresholds of the quality filters were set on such words. Deduplication compares pages with one another, not with a
paper's thresholds, and has plainer words of its own (data_prep/dedup/words.py).
"""

from __future__ import annotations

from functools import cache

from datatrove.utils.word_tokenizers import SpaCyTokenizer, WhitespaceTokenizer, WordTokenizer, load_word_tokenizer

from data_prep.blocks.spacy_rules import SpacyRules
from data_prep.blocks.splitters import AnyScript, RememberingSplitter, Splitter, StockSplitter
from kit.errors import UserError

# datatrove's table gives plain `zh` the rules for Latin script, under which a Chinese page is a handful of words.
_WITH_SCRIPT = {"zh": "zh_Hani"}


def words_of(text: str, language: str = "en") -> list[str]:
    """The words of a text, to be read only: blocks that ask for the same text share them."""
    return splitter(language).split(text).words


@cache
def splitter(language: str) -> Splitter:
    """The splitter of a language, one a process; one for any script where the machine has none for the language."""
    try:
        return _known_splitter(language)
    except (ValueError, ImportError, OSError):
        return _any_script()


def check_languages(languages: list[str]) -> None:
    """Fail before the run starts, not after an hour, where a language has no word splitter on this machine.

    Raises:
        UserError: names the language.
    """
    for language in languages:
        try:
            _known_splitter(language)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(
                f"languages.keep: no word splitter for {language!r} ({error})",
                expected="ISO 639-1 codes of languages that spaCy's blank models split, such as en, fr, de, es, it",
                action="remove the language, or install the package that the message names",
            ) from error


@cache
def _known_splitter(language: str) -> Splitter:
    stock = load_word_tokenizer(_WITH_SCRIPT.get(language, language))
    if type(stock) is WhitespaceTokenizer:
        return _by_rules("xx", stock)
    if type(stock) is SpaCyTokenizer and stock.config is None:
        return _by_rules(str(stock.language), None)
    stock.word_tokenize("a")  # loads what it needs, or says what is missing
    return StockSplitter(stock)


@cache
def _by_rules(spacy_language: str, sentences: WordTokenizer | None) -> RememberingSplitter:
    """One memory for the many languages that share a spaCy model."""
    return RememberingSplitter(SpacyRules(spacy_language), sentences)


@cache
def _any_script() -> RememberingSplitter:
    return RememberingSplitter(AnyScript())
