"""Words and sentences: those of datatrove's splitters, whatever the language."""

import csv
import random
from collections import defaultdict
from pathlib import Path

import pytest
import spacy
from datatrove.utils.word_tokenizers import load_word_tokenizer

from data_prep.blocks import splitters
from data_prep.blocks.kinds import kind_of, sentences_in, symbols, with_letters
from data_prep.blocks.spacy_rules import SpacyRules
from data_prep.blocks.splitters import RememberingSplitter
from data_prep.blocks.words import check_languages, splitter, words_of
from kit.errors import UserError

SENTENCES = Path(__file__).parents[4] / "shared" / "data" / "langid" / "tatoeba_long.txt"
LANGUAGES = ["en", "fr", "de", "es", "it", "pt", "pl", "ru"]
MARKS = [*".,;:!?'\"()[]{}-–—…“”‘’«»/\\*#@&%$€£+=_~`|^<>•·°§", "...", "'s", "km", "5", "12.5", "http://", "www.", "é"]
HARD = (
    "Mr. O'Neill can't pay $12.50/km (approx.), e.g. at 10:30a.m.; see http://a.example/b?c=d#e or x@y.org :-)\n"
    "  EE. UU., S.A. «l’État»\u202f! L'homme d'hier\xa0: aujourd’hui... 'twas—well—so-so. U.K.-based C++!!!\n\n"
    "z.B. Dr.Müller's 3,5 % и др. т.е. 5-летний; ¿Qué? -- ---- ***** ((nested)) [1][2]\ttab\x0bend."
)


def pieces(count: int) -> list[str]:
    """Pieces made of marks, exceptions of the rules and words; the hardest there are."""
    chance = random.Random(count)
    exceptions = [rule for rule in spacy.blank("en").tokenizer.rules if not any(map(str.isspace, rule))]
    parts = MARKS * 4 + exceptions + HARD.split()
    return ["".join(chance.choices(parts, k=chance.randint(1, 4))) for _ in range(count)]


@pytest.mark.parametrize("language", ["en", "de", "es", "ru", "xx"])
def test_rules_cut_like_spacy(language: str) -> None:
    rules, model = SpacyRules(language), spacy.blank(language)
    for piece in pieces(1500):
        assert rules.tokens(piece) == tuple(token.text for token in model.tokenizer(piece)), piece


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_and_sentences_are_datatroves(language: str) -> None:
    stock, ours = load_word_tokenizer(language), splitter(language)
    assert isinstance(ours, RememberingSplitter)
    for text in (HARD, HARD.replace(" ", "\xa0"), HARD.replace(" ", "  "), " a. b", "a.  ", ""):
        assert ours.split(text).words == stock.word_tokenize(text)
        assert ours.count(text) == len(ours.split(text).words)
        for line in filter(None, text.splitlines()):
            assert ours.sentences(line) == len(stock.span_tokenize(line)), line


def test_real_sentences_of_many_languages() -> None:
    if not SENTENCES.exists():
        pytest.skip("the sentences of ../shared/data/langid are not on this machine")
    texts = defaultdict(list)
    with SENTENCES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            texts[row["CLD2-code"]].append(row["text"])
    compared = 0
    for language in ["af", "cs", "el", "et", "is", "ka", "ro", "uk", "yi"]:
        stock = load_word_tokenizer(language)
        for text in texts[language]:
            assert words_of(text, language) == stock.word_tokenize(text)
            assert splitter(language).sentences(text) == len(stock.span_tokenize(text))
            compared += 1
    assert compared > 30


def test_memory_forgets_and_still_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    generations = splitters._Generations()
    monkeypatch.setattr(splitters, "_GENERATIONS", generations)
    monkeypatch.setattr(splitters, "_GENERATION", 50)
    small = RememberingSplitter(SpacyRules("en"))
    for start in range(0, 3000, 20):
        text = "It's the (same) thing, " + " ".join(f"no.{number}!" for number in range(start, start + 20))
        assert small.split(text).words == words_of(text)
        (memory,) = generations.members
        assert len(memory) + len(memory.earlier) <= 150 and len(memory.cuts) <= len(memory)
    assert "the" in memory or "the" in memory.earlier


def test_endless_pieces_take_linear_time() -> None:
    words = words_of("-" * 200_000 + " and " + "(\"'" * 50_000)
    assert len(words) == 100 + 1 + 75
    assert "".join(words) == "-" * 200_000 + "and" + "(\"'" * 50_000


def test_the_same_text_is_split_once() -> None:
    text = HARD * 2
    assert words_of(text) is words_of(str(text.encode(), "utf-8"))
    assert words_of(text) is not words_of(text, "fr")


def test_kinds() -> None:
    kinds = bytes(map(kind_of, ["word", ".", "...", "12", "a1", "$", "”", "x", "!", "Y", "©"]))
    assert with_letters(kinds) == 4
    assert symbols(kinds) == 5  # all marks but ©, which datatrove does not count as punctuation
    assert sentences_in(kinds) == 3  # after "." the number begins one, after "!" the Y
    assert sentences_in(b"") == 1


def test_an_unknown_language_is_refused_early_and_split_anyway() -> None:
    with pytest.raises(UserError, match="no word splitter for 'klingon'"):
        check_languages(["en", "klingon"])
    check_languages(["en", "fr", "ka"])
    assert words_of("nuqneH, tera'ngan!", "klingon") == ["nuqneH", ",", "tera'ngan", "!"]
    assert words_of("东京都 ok", "klingon") == ["东", "京", "都", "ok"]
    assert splitter("klingon").sentences("One. Two.") == 2


def test_chinese_is_not_one_word_a_line() -> None:
    text = "敏捷的棕色狐狸跳过了懒狗。" * 3
    assert len(words_of(text, "zh")) > 10
    assert "".join(words_of(text, "zh")) == text
