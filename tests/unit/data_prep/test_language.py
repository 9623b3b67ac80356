"""Language identification: accuracy on labelled sentences, samples of long texts, and the filter's choices."""

from pathlib import Path

import pytest
from datatrove.data import Document

from benchmarks.data.languages import measure
from data_prep.blocks.config import LanguagesConfig
from data_prep.blocks.language import LanguageFilter, identify

LABELLED = Path(__file__).parents[4] / "shared" / "data" / "langid" / "tatoeba_long.txt"
LARGE = ("en", "fr", "de", "es", "ru", "ja")
PROSE = {
    "en": "The harbour was quiet in the morning, and the boats came back one after another with the first light. ",
    "fr": "Le port était calme le matin, et les bateaux rentraient l'un après l'autre avec la première lumière. ",
    "de": "Am Morgen war es im Hafen still, und die Boote kamen mit dem ersten Licht eines nach dem anderen zurück. ",
    "es": "El puerto estaba tranquilo por la mañana y los barcos volvían uno tras otro con la primera luz. ",
    "ru": "Утром в гавани было тихо, и лодки одна за другой возвращались с первыми лучами солнца. ",
    "ja": "朝の港は静かで、船は夜明けの光とともに一隻また一隻と帰ってきた。",
    "uz": "Эрталаб бандаргоҳ жимжит эди, қайиқлар эса биринчи нур билан бирин-кетин қайтиб келарди. ",
}


@pytest.mark.parametrize(("language", "text"), PROSE.items())
def test_knows_short_and_long_texts(language: str, text: str) -> None:
    for times in (1, 60):
        found, probability = identify(text * times)
        assert found == language
        assert probability > (0.65 if language in LARGE else 0.3)


def test_accuracy_on_labelled_sentences() -> None:
    if not LABELLED.exists():
        pytest.skip("the labelled sentences of ../shared/data/langid are not on this machine")
    result = measure(LABELLED)
    assert result["language_accuracy"] >= 0.96
    assert result["languages_known"] >= 75


def test_a_menu_in_another_language_does_not_decide() -> None:
    menu = "Home\nAbout us\nContact\nSign in\nShopping cart\nTerms and conditions of use\n"
    assert identify(menu + PROSE["de"] * 20 + menu)[0] == "de"


@pytest.mark.parametrize(
    "text", ["", " \n ", "\ud800\udc00 \ud800 abc", "\x00\x01\x02 the words \x7f\ufffe", "12 34 !?", "🙂" * 999]
)
def test_takes_any_text(text: str) -> None:
    language, probability = identify(text)
    assert language and 0.0 <= probability <= 1.0


@pytest.mark.parametrize(
    ("keep", "threshold", "language", "verdict"),
    [
        (["en", "de"], 0.65, "de", True),
        (["en"], 0.65, "de", (False, "language_de")),
        (["de"], 1.0, "de", (False, "language_uncertain")),
        ([], 0.65, "fr", True),
    ],
)
def test_filter(keep: list[str], threshold: float, language: str, verdict: object) -> None:
    document = Document(text=PROSE[language] * 3 + ("12 " * 400 if threshold == 1 else ""), id="1")
    assert LanguageFilter(LanguagesConfig(keep=keep, threshold=threshold)).filter(document) == verdict
    assert document.metadata["language"] == language
    assert 0 < document.metadata["language_probability"] <= 1.0
