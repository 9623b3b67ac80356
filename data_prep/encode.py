"""Fast encoding: SentencePiece's ids for a byte-pair model, at nearly three times its speed.

A merge makes a learned piece, so none crosses a place between two characters that no learned piece has side by side.
Our models have no space inside a piece and no line end in one: text is cut before spaces and around line ends, and a
word is looked up in a table. SentencePiece is asked only for words that have not been seen. Whether that holds is not
assumed: `fast_encoder` reads it off the model and compares ids on documents and on odd strings, and where anything
differs SentencePiece encodes everything. For unigram models SentencePiece itself is as fast as the table.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from sentencepiece import SentencePieceProcessor

from kit.tokens.shards import best_dtype

Ids = npt.NDArray[np.generic]

BATCH_CHARACTERS = 1 << 15
"""Texts encoded together: enough that a call of SentencePiece costs nothing, few enough to stay in the cache."""
CHECKED_DOCUMENTS = 200
CHECKED_CHARACTERS = 10_000

_SPACE = "\u2581"
_CUT = "\x01"
_MOST_WORDS = 1 << 19  # by estimate 100 MiB
_LONGEST_KEPT = 40
_PARTS = re.compile(r" ?\w+|[^\w]+")
_ODD = (
    "",
    " ",
    "\n",
    "   three spaces   \n\n\n and\ttabs\t\t\r\nand more  ",
    "control \x00\x01\x02\x07\x1b\x7f\x85\u2028\u2029 characters",
    "a <|user|> </s> <s><pad><unk> <0x41><0x0A> <|end|>",
    f"blocks {_SPACE}{_SPACE}in{_SPACE}text {_SPACE} \u2582\u2583",
    "1234567890 3.14159 1,000,000 12:30 ½ ² ٣٤ x1y2z3",
    "😀😀 👩‍👩‍👧 🇩🇪 e\u0301 \u0301 \ufeff\ufffd \ufb01 no-break\u00a0space soft\u00adhyphen zero\u200bwidth",
    "日本語の文章。中文，没有空格的句子！ ไทยไม่มีช่องว่าง العربية עברית हिन्दी \u0b95\u0bcd",
    "don't “quote”, 'quote' --- ... !!! (((a))) [b] {c}; x=y+z; a/b\\c @d #e $5 50% under_score __init__ a-b—c",
    "http://example.org/a?b=c&d=%20#e user@example.org C:\\x",
    "x" * 3000 + " " + "ab" * 2000 + "\n" + "=" * 500 + " " + "-_" * 300,
    "MiXeD CaSe WORDS andCamelCase ÀÉÎ straße İstanbul ŁÓDŹ",
)


class Encoder(Protocol):
    """Texts to ids."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of every text, in the dtype of the shards; no end tokens."""
        ...


class PlainEncoder:
    """SentencePiece as it is, in this thread."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        self._processor = processor
        self._dtype = best_dtype(processor.get_piece_size())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of every text."""
        return [self._processor.encode(text, return_type="numpy").astype(self._dtype) for text in texts]


class WordTableEncoder:
    """Looks words up and asks SentencePiece for the others.

    The table is emptied when it is full, so memory is bounded; what is in it never changes a result.

    Args:
        processor: a model for which `cuts_are_safe` holds.
    """

    def __init__(self, processor: SentencePieceProcessor) -> None:
        self._processor = processor
        self._plain = PlainEncoder(processor)
        self._dtype = best_dtype(processor.get_piece_size())
        self._code = "H" if self._dtype == np.uint16 else "i"
        self._neighbours = neighbours(processor)
        self._words: dict[str, bytes] = {}

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of every text."""
        if len(self._words) > _MOST_WORDS:
            self._words.clear()
        if any(_CUT in text for text in texts):
            return self._plain.encode(texts)
        cut = [text.replace(" ", "\x01 ").replace("\n", "\x01\n\x01").split(_CUT) for text in texts]
        rows = [list(map(self._words.get, words)) for words in cut]
        gaps = [(row, words, at) for row, words in zip(rows, cut, strict=True) for at in _gaps(row)]
        unseen = {words[at] for _, words, at in gaps}
        self._learn(unseen)
        for row, words, at in gaps:
            row[at] = self._words[words[at]]
        joined = [np.frombuffer(b"".join(row), self._dtype) for row in rows]  # type: ignore[arg-type]
        for word in unseen:
            if len(word) > _LONGEST_KEPT:
                del self._words[word]
        return joined

    def _learn(self, unseen: set[str]) -> None:
        """Put words into the table: where a word may be cut into parts, most parts are there already."""
        words, pairs, whole, composed = self._words, self._neighbours, set(), []
        for word in unseen:
            stem, last = word[:-1], word[-1:]
            if stem in words and last in words and word[-2:] not in pairs:  # a known word and its comma
                words[word] = words[stem] + words[last]
                continue
            parts = _PARTS.findall(word)
            if len(parts) > 1 and pairs.isdisjoint([a[-1] + b[0] for a, b in itertools.pairwise(parts)]):
                composed.append((word, parts))
                whole.update(parts)
            else:
                whole.add(word)
        asked = [word for word in whole if word not in words]
        code = self._code
        for word, ids in zip(asked, self._processor.encode(asked, num_threads=1), strict=True):
            words[word] = array(code, ids).tobytes()
        for word, parts in composed:
            words[word] = b"".join([words[part] for part in parts])


def _gaps(row: list[bytes | None]) -> list[int]:
    found, at = [], -1
    try:
        while True:
            at = row.index(None, at + 1)
            found.append(at)
    except ValueError:  # no more; nearly twice as fast as a look at every entry
        return found


def neighbours(processor: SentencePieceProcessor) -> set[str]:
    """Every two characters that stand side by side in a learned piece; a space in both its spellings."""
    ids = range(processor.get_piece_size())
    learned = [processor.id_to_piece(i) for i in ids if not _reserved(processor, i)]
    pairs = {piece[at : at + 2] for piece in learned for at in range(len(piece) - 1)}
    return pairs | {pair.replace(_SPACE, " ") for pair in pairs}


def cuts_are_safe(pairs: set[str]) -> bool:
    """Whether no piece has a space after its first character, or a line end beside another character."""
    return not any(pair[1] in (_SPACE, " ") or "\n" in pair for pair in pairs)


def fast_encoder(processor: SentencePieceProcessor, kind: str, texts: Iterable[str]) -> bool:
    """Whether the table gives SentencePiece's ids, so that it may stand in for it.

    Args:
        processor: the model.
        kind: bpe or unigram.
        texts: documents of every language, as from `check_sample`; odd strings are added here.
    """
    if kind != "bpe" or not cuts_are_safe(neighbours(processor)):
        return False
    plain, table = PlainEncoder(processor), WordTableEncoder(processor)
    checked = [*_ODD, *texts]
    for _ in range(2):  # the second time every word is in the table
        for text in checked:
            if not np.array_equal(plain.encode([text])[0], table.encode([text])[0]):
                return False
    return True


def build_encoder(processor: SentencePieceProcessor, fast: bool) -> Encoder:
    """The encoder that `fast_encoder` decided on."""
    return WordTableEncoder(processor) if fast else PlainEncoder(processor)


def check_sample(documents: Iterable[Document]) -> list[str]:
    """The first texts of every language, about 200 in all and at least 25 of each language that has so many."""
    chosen: dict[str, list[str]] = {}
    for document in documents:
        texts = chosen.setdefault(str(document.metadata.get("language", "en")), [])
        if len(texts) < CHECKED_DOCUMENTS:
            texts.append(document.text[:CHECKED_CHARACTERS])
    share = max(25, -(-CHECKED_DOCUMENTS // max(1, len(chosen))))
    rest = CHECKED_DOCUMENTS - sum(min(share, len(texts)) for texts in chosen.values())
    picked = [text for texts in chosen.values() for text in texts[:share]]
    return picked + [text for texts in chosen.values() for text in texts[share:]][: max(0, rest)]


def _reserved(processor: SentencePieceProcessor, index: int) -> bool:
    return bool(processor.is_control(index) or processor.is_unknown(index) or processor.is_byte(index))
