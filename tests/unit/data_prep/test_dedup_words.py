"""Hashes of words and n-grams say the same as the words themselves would."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import regex

from data_prep.dedup import words
from data_prep.dedup.words import ngram_hashes, word_hashes

TEXT = Path(__file__).parents[4] / "shared" / "data" / "text" / "openwebtext_1000.jsonl.xz"
PLAIN = regex.compile(r"[\p{Han}\p{Hiragana}]|(?:(?![\p{Han}\p{Hiragana}])[\p{L}\p{N}\p{M}])+")
MIXED = "Ein Straßenfest, naïve_co-operation — 東京は, 42nd!\n\nहिन्दी में\u00a0x\ud800y " * 3


def plain(text: str) -> list[str]:
    return PLAIN.findall(text.lower())


@pytest.mark.parametrize("text", ["", " \n", "...", "one", "One, two: THREE", MIXED, "\U00020000\U00020001a"])
def test_the_words_are_those_of_a_plain_splitter(text: str) -> None:
    expected = plain(text)
    hashes = word_hashes(text).tolist()
    assert len(hashes) == len(expected)
    assert len(set(zip(hashes, expected, strict=True))) == len(set(hashes)) == len(set(expected))


def test_real_pages_have_the_same_words_and_ngrams() -> None:
    if not TEXT.exists():
        pytest.skip("the texts of ../shared/data are not on this machine")
    names: dict[int, str] = {}
    ngrams: dict[int, tuple[str, ...]] = {}
    with lzma.open(TEXT, "rt") as file:
        for line, _ in zip(file, range(60), strict=False):
            text = json.loads(line)["text"]
            expected = plain(text)
            hashes = word_hashes(text)
            for code, word in zip(hashes.tolist(), expected, strict=True):
                assert names.setdefault(code, word) == word
            for place, code in enumerate(ngram_hashes(hashes, 5).tolist()):
                assert ngrams.setdefault(code, tuple(expected[place : place + 5])) == tuple(expected[place : place + 5])
    assert len(set(names.values())) == len(names) > 5000
    assert len(set(ngrams.values())) == len(ngrams) > 20_000


def test_a_word_has_one_hash_wherever_it_stands() -> None:
    ascii_only, with_accent = word_hashes("alpha beta gamma alpha"), word_hashes("é alpha, (BETA) gamma")
    assert ascii_only[:3].tolist() == with_accent[1:].tolist()
    assert ascii_only[0] == ascii_only[3]
    assert ngram_hashes(ascii_only, 3)[0] == ngram_hashes(with_accent, 3)[1]


def test_a_huge_text_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = MIXED * 50
    whole = word_hashes(text)
    monkeypatch.setattr(words, "_PIECE", 100)
    assert np.array_equal(word_hashes(text), whole)
    assert len(word_hashes("x" * 250)) == 3  # a "word" longer than a piece is cut, not kept in memory whole


def test_a_text_shorter_than_an_ngram_is_one() -> None:
    assert len(ngram_hashes(word_hashes("only three words"), 5)) == 1
    assert len(ngram_hashes(word_hashes("now there are five words"), 5)) == 1
    assert len(ngram_hashes(word_hashes(""), 5)) == 0
