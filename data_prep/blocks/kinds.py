"""What kind of word a word is, as one byte, so that counting kinds is counting bytes.

The Gopher rules ask whether a word has letters and whether it is all punctuation; spaCy's sentencizer asks whether it
ends a sentence and whether it may follow such an end.
"""

from __future__ import annotations

import unicodedata

from datatrove.utils.text import PUNCTUATION_SET

# What ends a sentence for spaCy's sentencizer (spacy/pipeline/sentencizer.pyx, its default punct_chars).
_ENDS = frozenset(
    "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂"
    "𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈｡。"
)

_LETTERS, _SYMBOL, _MARK, _END = 1, 2, 4, 8  # has a letter; all punctuation; all of Unicode's P; ends a sentence
_ALL = range(16)
_NOT_LETTERS = bytes(kind for kind in _ALL if not kind & _LETTERS)
_NOT_SYMBOL = bytes(kind for kind in _ALL if not kind & _SYMBOL)
_SYMBOL_FLAGS = bytes(int(bool(kind & _SYMBOL)) for kind in range(256))
_MERE_MARKS = bytes(kind for kind in _ALL if kind & _MARK and not kind & _END)
_ENDS_OR_WORDS = bytes(b"."[0] if kind & _END else b"w"[0] for kind in range(256))


def kind_of(word: str) -> int:
    """The kind of a word."""
    if word.isalpha():
        return _LETTERS
    kind = _LETTERS * any(map(str.isalpha, word)) + _SYMBOL * PUNCTUATION_SET.issuperset(word)
    kind += _MARK * all(unicodedata.category(character)[0] == "P" for character in word)
    return kind + _END * (word in _ENDS)


def with_letters(kinds: bytes) -> int:
    """How many words have a letter."""
    return len(kinds.translate(None, _NOT_LETTERS))


def symbols(kinds: bytes) -> int:
    """How many words are punctuation through and through."""
    return len(kinds.translate(None, _NOT_SYMBOL))


def symbol_flags(kinds: bytes) -> bytes:
    """One byte a word: 1 where it is punctuation through and through, else 0."""
    return kinds.translate(_SYMBOL_FLAGS)


def sentences_in(kinds: bytes) -> int:
    """Sentences of a line: one, and one more for every word that follows an end, other marks between them or not."""
    return 1 + kinds.translate(_ENDS_OR_WORDS, _MERE_MARKS).count(b".w")
