"""Pages with a word of the user's lists: Raffel et al. (2020), section 2.2, with lists that are not ours to ship.

Words count as datatrove's C4BadWordsFilter counts them: in lower case, and between characters that belong to no word,
except in scripts without spaces. Which pages stay by `keep_fraction` hangs on their text alone.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import BadWordsConfig
from data_prep.ledger import ReasonKeeper
from kit.errors import UserError
from kit.files import require_file

_UNSPACED = frozenset({"ja", "km", "lo", "my", "th", "zh"})
_WORD = re.compile(r"\w+")


class BadWords(BaseFilter):
    """Drops a page for a word or phrase of its language's list, or of the list `default` where there is none.

    Raises:
        UserError: a list is missing, empty or no UTF-8 text.
    """

    name = "bad_words"

    def __init__(self, config: BadWordsConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.keep_fraction = config.keep_fraction
        self._lists = {language: _WordList(language, Path(path)) for language, path in config.files.items()}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or drop as `bad_word`."""
        language = doc.metadata.get("language", "en")
        words = self._lists.get(language) or self._lists.get("default")
        if words is None or not words.occur_in(doc.text, language) or self._stays_anyway(doc.text):
            return True
        return False, "bad_word"

    def _stays_anyway(self, text: str) -> bool:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self.keep_fraction * 2**64


class _WordList:
    """The words of one file, sorted by how they are found."""

    def __init__(self, language: str, path: Path) -> None:
        entries = _read(language, path)
        self.words = frozenset(entry for entry in entries if _WORD.fullmatch(entry))
        self.phrases = [(entry, re.compile(rf"(?:\W|^){re.escape(entry)}(?:\W|$)")) for entry in entries - self.words]
        self.entries = sorted(entries)

    def occur_in(self, text: str, language: str) -> bool:
        """Whether a page has one of them."""
        text = text.lower()
        if language in _UNSPACED:
            return any(entry in text for entry in self.entries)
        if not self.words.isdisjoint(_WORD.findall(text)):
            return True
        return any(entry in text and pattern.search(text) for entry, pattern in self.phrases)


def _read(language: str, path: Path) -> set[str]:
    key = f"filters.bad_words.files.{language}"
    require_file(path, f"the list of {key}")
    try:
        entries = {line.strip().lower() for line in path.read_text("utf-8-sig").splitlines()} - {""}
    except UnicodeDecodeError as error:
        raise UserError(
            f"{key}: {path} is no UTF-8 text ({error})",
            expected="words and phrases, one a line",
            action="convert the file, e.g. with iconv",
        ) from error
    if not entries:
        raise UserError(
            f"{key}: {path} has no words",
            expected="words and phrases, one a line",
            action="fill the file, or leave the language out",
        )
    return entries
