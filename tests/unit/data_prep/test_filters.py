"""Language, quality and privacy blocks."""

import json
import lzma
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.utils.word_tokenizers import load_word_tokenizer

from data_prep.blocks import filter as filters
from data_prep.blocks.config import (
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    LanguagesConfig,
    PiiConfig,
)
from data_prep.blocks.language import LanguageFilter, identify
from data_prep.blocks.pii import EMAIL_MASK, IP_MASK, mask_pii
from data_prep.blocks.words import PlainWords, word_splitter
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


def document(text: str, language: str = "en") -> Document:
    return Document(text=text, id="x", metadata={"language": language})


@pytest.mark.parametrize("language", LANGUAGES)
def test_identifies_languages_offline(language: str) -> None:
    found, probability = identify(TEXTS[language])
    assert found == language
    assert probability > 0.8


def test_keeps_the_wanted_languages() -> None:
    block = LanguageFilter(LanguagesConfig(keep=["en"], threshold=0.5))
    assert block.filter(document(TEXTS["en"])) is True
    assert block.filter(document(TEXTS["de"])) == (False, "language_de")
    assert identify("日本語の文章です。これは試験です。")[0] == "ja"


@pytest.mark.parametrize("language", LANGUAGES)
def test_running_text_of_every_language_passes_gopher(language: str) -> None:
    text = TEXTS[language] + "\n" + " ".join(reversed(TEXTS[language].split()))
    block = filters.gopher_quality(GopherQualityConfig(min_words=30), LANGUAGES)
    assert block.filter(document(text, language)) is True
    other = "de" if language == "en" else "en"
    assert block.filter(document(text, other)) == (False, "gopher_enough_stop_words")


def test_drops_by_the_papers_rules() -> None:
    sentence = TEXTS["en"]
    assert filters.gopher_repetition(GopherRepetitionConfig(), ["en"]).filter(document(f"{sentence}\n" * 9))[0] is False
    assert filters.gopher_quality(GopherQualityConfig(), ["en"]).filter(document("Too short.")) == (
        False,
        "gopher_short_doc",
    )
    fineweb = filters.fineweb(FineWebConfig(), ["en"])
    assert fineweb.filter(document("\n".join(f"item {n}" for n in range(30))))[1] == "line_punct_ratio"
    c4 = filters.c4(C4Config(), ["en"])
    assert c4.filter(document("Five lines. " * 5 + "function() {")) == (False, "curly_bracket")
    kept = document(
        "One two three. Four five six.\nPlease enable JavaScript here.\nIt is so. They went home. We did too."
    )
    assert c4.filter(kept) is True
    assert "JavaScript" not in kept.text


@pytest.fixture(scope="module")
def web_texts() -> list[str]:
    path = Path(__file__).parents[4] / "shared" / "data" / "text" / "openwebtext_1000.jsonl.xz"
    if not path.exists():
        pytest.skip("the real texts of ../shared/data/text are not on this machine")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for _, line in zip(range(60), file, strict=False)]


def test_words_are_those_of_datatrove(web_texts: list[str]) -> None:
    for text in web_texts[:20]:
        assert word_splitter("en").word_tokenize(text) == load_word_tokenizer("en").word_tokenize(text)


def test_c4_decides_as_datatrove(web_texts: list[str]) -> None:
    ours = filters.c4(C4Config(), ["en"])
    stock = C4QualityFilter(filter_no_terminal_punct=False, language="en")
    short = ["One. Two.", "One two three. Four five six.\nSeven eight nine.", "", "A b c.\n" * 5, "A b c.\n" * 4]
    for text in web_texts + short:
        one, other = document(text), document(text)
        assert ours.filter(one) == stock.filter(other)
        assert one.text == other.text


def test_plain_words_split_unspaced_scripts() -> None:
    assert PlainWords().word_tokenize("two words 東京都 x") == ["two", "words", "東", "京", "都", "x"]


def test_an_unknown_language_is_refused_early() -> None:
    with pytest.raises(UserError, match="no word splitter"):
        filters.check_languages(["en", "klingon"])


def test_masks_personal_data_the_same_way_every_time() -> None:
    block = mask_pii(PiiConfig())
    text = "Write to jane.doe@company.com or joe@site.org from 8.8.8.8, not from 192.168.0.1."
    expected = f"Write to {EMAIL_MASK} or {EMAIL_MASK} from {IP_MASK}, not from 192.168.0.1."
    assert block.format(text) == expected
    assert block.format(text) == expected
    assert mask_pii(PiiConfig(emails=False, ip_addresses=False)).format(text) == text
