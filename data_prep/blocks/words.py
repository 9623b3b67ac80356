"""Words: spaCy's for the quality filters, whose thresholds were set on such words; plain ones for MinHash."""

from __future__ import annotations

from functools import cache
from typing import Any

import regex
from datatrove.utils.word_tokenizers import SpaCyTokenizer, WordTokenizer, load_word_tokenizer, strip_strings

_TEXTS_A_MODEL = 5000

# Scripts written without spaces: each character counts as a word, or a page would be a handful of huge ones.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class PlainWords(WordTokenizer):
    """Splits text that datatrove has simplified already (lower case, no punctuation), whatever the language.

    MinHash compares pages with one another, not with a paper's thresholds, so it needs the same words everywhere
    rather than linguistic ones; and one run holds pages of many languages.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """The words in order."""
        return list(_WORD.findall(text))

    def sent_tokenize(self, text: str) -> list[str]:
        """The whole text: sentences are not needed here."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """One span over the whole text."""
        return [(0, len(text))]


class SpacyWords(WordTokenizer):
    """The same words as datatrove's spaCy tokenizer, in about half the time.

    datatrove marks sentences while it looks for words, and throws spaCy's cache of split words away after every
    text, which keeps the memory flat. Here the sentence marker is left out, and the cache goes with the whole blank
    model every few thousand texts. Sentences are datatrove's own.
    """

    def __init__(self, stock: SpaCyTokenizer) -> None:
        super().__init__(stock.language)
        self.stock = stock
        self._model: Any = None
        self._texts = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> SpacyWords:
        """One a process and language is enough: a copy would load the model again."""
        return self

    def word_tokenize(self, text: str) -> list[str]:
        """The words in order, white space left out."""
        if self._model is None or self._texts >= _TEXTS_A_MODEL:
            import spacy

            self._model, self._texts = spacy.blank(str(self.language)).tokenizer, 0
        self._texts += 1
        return list(strip_strings([token.text for token in self._model(text)]))

    def sent_tokenize(self, text: str) -> list[str]:
        """datatrove's sentences."""
        return list(self.stock.sent_tokenize(text))

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where datatrove's sentences begin and end."""
        return list(self.stock.span_tokenize(text))


@cache
def word_splitter(language: str) -> WordTokenizer:
    """The word splitter of a language, one a process.

    Raises:
        ValueError: datatrove has none for the language.
        ImportError: its package is missing.
    """
    stock = load_word_tokenizer(language)
    # Chinese and Japanese go through segmenters that datatrove sets up itself.
    return SpacyWords(stock) if type(stock) is SpaCyTokenizer and stock.config is None else stock
