"""Quality filters: the decisions, reasons and texts of datatrove's, page by page."""

import json
import lzma
import random
import re
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from benchmarks.data import filters as benchmark
from data_prep.blocks.bad_words import BadWords
from data_prep.blocks.c4 import C4
from data_prep.blocks.config import (
    BadWordsConfig,
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
)
from data_prep.blocks.fineweb import FineWeb
from data_prep.blocks.gopher_quality import GopherQuality, stop_words
from data_prep.blocks.gopher_repetition import GopherRepetition, lines_of, paragraphs_of
from kit.errors import UserError

# The first article of the Universal Declaration of Human Rights and its neighbours, in four languages.
TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
}
LANGUAGES = list(TEXTS)
ODD = [
    "",
    "\n",
    "a",
    "...",
    "#",
    "One. Two.",
    "A b c.\n" * 5,
    "A b c.\n" * 4,
    "x\n\n\nx\n\nx",
    "\u2028word\x1d\x85 a\xa0b.",
]


def document(text: str, language: str = "en") -> Document:
    return Document(text=text, id="x", metadata={"language": language})


def spoilt(text: str, chance: random.Random) -> str:
    """A page with one of the faults that the filters look for."""
    lines, words = text.splitlines(), text.split()
    some = " ".join(words[chance.randrange(len(words)) :][:30])
    marks = ["{", "javascript", "[1] [2]  ", "lorem ipsum", "cookie policy", "java[3]script", "#", "…", "x" * 1001]
    faults = [
        lambda: "\n".join(line for line in lines for _ in range(chance.choice([1, 1, 2]))),
        lambda: "\n\n".join([*lines, *[some] * chance.randint(1, 6)]),
        lambda: "\n".join(f"- {line}..." for line in lines),
        lambda: "\n".join(words[:200]),
        lambda: re.sub(r"\bthe\b", lambda _: chance.choice(marks), text),
        lambda: text.replace("a", "1").replace("e", chance.choice(["#", "2"])),
        lambda: text[: chance.randint(1, 400)],
        lambda: text.replace(". ", ".\n\n\n\n") + "\n",
    ]
    return chance.choice(faults)()


@pytest.fixture(scope="module")
def web_texts() -> list[str]:
    path = Path(__file__).parents[4] / "shared" / "data" / "text" / "openwebtext_1000.jsonl.xz"
    if not path.exists():
        pytest.skip("the real texts of ../shared/data/text are not on this machine")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(20), file, strict=False)]
    chance = random.Random(7)
    return texts + [spoilt(text[:4000], chance) for text in texts for _ in range(2)]


PAIRS = {
    "gopher_repetition": (lambda: GopherRepetition(GopherRepetitionConfig()), GopherRepetitionFilter),
    "strict_repetition": (
        lambda: GopherRepetition(GopherRepetitionConfig(top_ngrams={2: 0.02, 3: 0.012}, duplicate_ngrams={4: 0.01})),
        lambda: GopherRepetitionFilter(top_n_grams=((2, 0.02), (3, 0.012)), dup_n_grams=((4, 0.01),)),
    ),
    "gopher_quality": (
        lambda: GopherQuality(GopherQualityConfig()),
        lambda: GopherQualityFilter(stop_words=list(stop_words()["en"])),
    ),
    "c4": (lambda: C4(C4Config()), lambda: C4QualityFilter(filter_no_terminal_punct=False)),
    "c4_of_the_paper": (
        lambda: C4(C4Config(drop_lines_without_punctuation=True, drop_pages_with_curly_brackets=False)),
        lambda: C4QualityFilter(filter_curly_bracket=False),
    ),
    "fineweb": (lambda: FineWeb(FineWebConfig()), FineWebQualityFilter),
}


@pytest.mark.parametrize("name", PAIRS)
def test_decides_as_datatrove(name: str, web_texts: list[str]) -> None:
    ours, stock = (build() for build in PAIRS[name])
    reasons = set()
    odd = [text for text in ODD if text.strip("\n") or name.startswith("c4")]  # on these datatrove divides by zero
    for text in web_texts + odd:
        one, other = document(text), document(text)
        verdict = stock.filter(other)
        assert ours.filter(one) == verdict
        assert one.text == other.text
        reasons.add(verdict)
    assert True in reasons and len(reasons) > 2


@pytest.mark.parametrize("name", ["gopher_repetition", "gopher_quality", "c4", "fineweb"])
def test_odd_pages_break_nothing(name: str) -> None:
    block: BaseFilter = PAIRS[name][0]()
    for text in ODD:
        assert block.filter(document(text))
        assert block.filter(document(text, "klingon"))
        assert block.filter(Document(text=text, id="without a language"))


def test_lines_and_paragraphs_are_those_of_the_expressions() -> None:
    chance = random.Random(3)
    for _ in range(3000):
        text = "".join(chance.choices("\n\n\nab ", k=chance.randint(1, 14)))
        assert paragraphs_of(text) == re.split(r"\n{2,}", text.strip())
        assert lines_of(text) == re.split(r"\n+", text)


def test_long_pages_are_hashed_in_parts(web_texts: list[str]) -> None:
    page = "\n".join(web_texts[:20])
    assert len(page.split()) > 2 * 4096
    for fractions in ({2: 0.005}, {}):
        ours = GopherRepetition(GopherRepetitionConfig(top_ngrams=fractions, duplicate_ngrams={5: 0.02, 7: 0.001}))
        stock = GopherRepetitionFilter(top_n_grams=tuple(fractions.items()), dup_n_grams=((5, 0.02), (7, 0.001)))
        assert ours.filter(document(page)) == stock.filter(document(page))


@pytest.mark.parametrize("language", LANGUAGES)
def test_running_text_of_every_language_passes_gopher(language: str) -> None:
    text = TEXTS[language] + "\n" + " ".join(reversed(TEXTS[language].split()))
    block = GopherQuality(GopherQualityConfig(min_words=30))
    assert block.filter(document(text, language)) is True
    other = "de" if language == "en" else "en"
    assert block.filter(document(text, other)) == (False, "gopher_enough_stop_words")
    assert block.filter(document(text, "ka")) is True  # no list, no rule


def test_stop_words_are_lists_of_words() -> None:
    assert len(stop_words()) >= 30
    for language, words in stop_words().items():
        assert re.fullmatch("[a-z]{2}", language)
        assert len(words) >= 8 and all(isinstance(word, str) and word == word.strip().lower() for word in words)


def test_the_reason_lands_in_the_metadata() -> None:
    page = document("Too short.")
    assert list(GopherQuality(GopherQualityConfig()).run(iter([page]))) == []
    assert page.metadata["filter_reason"] == "gopher_short_doc"


@pytest.fixture
def bad_words(tmp_path: Path) -> dict[str, str]:
    lists = {"en": "Darn\nwhat the heck\nd*mn\n\n", "zh": "坏话\n", "default": "mist\n"}
    for language, words in lists.items():
        (tmp_path / language).write_text(words, encoding="utf-8")
    return {language: str(tmp_path / language) for language in lists}


@pytest.mark.parametrize(
    ("text", "language", "dropped"),
    [
        ("A darn thing", "en", True),
        ("DARN", "en", True),
        ("He darned socks", "en", False),
        ("a d*mn, yes", "en", True),
        ("bad*mnx", "en", False),
        ("What the heck?", "en", True),
        ("What the heckler said", "en", False),
        ("这是坏话吗", "zh", True),
        ("So ein Mist!", "de", True),
        ("Darn it", "de", False),
    ],
)
def test_bad_words(bad_words: dict[str, str], text: str, language: str, dropped: bool) -> None:
    verdict = BadWords(BadWordsConfig(files=bad_words)).filter(document(text, language))
    assert verdict == ((False, "bad_word") if dropped else True)


def test_some_pages_with_bad_words_stay_always_the_same(bad_words: dict[str, str]) -> None:
    block = BadWords(BadWordsConfig(files=bad_words, keep_fraction=0.25))
    kept = [block.filter(document(f"darn {number}")) is True for number in range(800)]
    assert 150 < sum(kept) < 250
    again = BadWords(BadWordsConfig(files=bad_words, keep_fraction=0.25))
    assert kept == [again.filter(document(f"darn {number}")) is True for number in range(800)]
    everything = BadWords(BadWordsConfig(files=bad_words, keep_fraction=1.0))
    assert everything.filter(document("darn")) is True


def test_a_list_of_bad_words_must_have_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        BadWords(BadWordsConfig(files={"en": str(tmp_path / "absent")}))
    for content, message in ((b" \n\n", "no words"), (b"caf\xe9\n", "no UTF-8")):
        (tmp_path / "list").write_bytes(content)
        with pytest.raises(UserError, match=message):
            BadWords(BadWordsConfig(files={"en": str(tmp_path / "list")}))


def test_the_benchmark_measures_agreement_and_speed(web_texts: list[str]) -> None:
    pages = [document(text) for text in web_texts[:3]] + [document(TEXTS["de"] * 3, "de"), document("x", "klingon")]
    result = benchmark.measure(pages)
    assert result["documents"] == 4 and result["left_out"] == 1
    assert set(result["filter_agreement"].values()) == set(result["reason_agreement"].values()) == {1.0}
    assert set(result["speed_ratio"]) == {"gopher_repetition", "gopher_quality", "c4", "fineweb", "all"}
