"""Perplexity under a language model of good text, and the buckets that CCNet makes of it (Wenzek et al. 2020)."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from sentencepiece import SentencePieceProcessor

from data_prep.blocks.arpa import ArpaModel
from data_prep.blocks.config import PerplexityConfig
from data_prep.ledger import ReasonKeeper
from kit.errors import UserError

_DEFAULT_LANGUAGE = "en"
_DIGIT = re.compile(r"\d")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("，", ","),
        **dict.fromkeys("。、．", "."),
        **dict.fromkeys("„”“«»「」《》″", '"'),
        **dict.fromkeys("’‘´`′", "'"),
        **dict.fromkeys("∶：", ":"),
        **dict.fromkeys("？", "?"),
        **dict.fromkeys("！", "!"),
        **dict.fromkeys("；", ";"),
        **dict.fromkeys("（【", "("),
        **dict.fromkeys("）】", ")"),
        **dict.fromkeys("–—━", "-"),
        "…": "...",
        "％": "%",
        "～": "~",
    }
)
_models: dict[str, Any] = {}  # one a process; KenLM's do not pickle


class Perplexity(BaseFilter):
    """Notes `perplexity` and `bucket` in the metadata and drops the buckets that are not kept.

    The bucket is known for languages with both limits; a page in a language without a model passes unmarked.

    Raises:
        UserError: a model is missing, its kind needs a package that is not installed, or limits contradict each other.
    """

    name = "perplexity"

    def __init__(self, config: PerplexityConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config
        for key, files in (("models", config.models), ("tokenizers", config.tokenizers)):
            for language, path in files.items():
                _check_file(f"filters.perplexity.{key}.{language}", path, key == "models")
        _check_limits(config)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document whose bucket is kept."""
        language = str(doc.metadata.get("language", _DEFAULT_LANGUAGE))
        if language not in self.config.models:
            return True
        value = perplexity(doc.text, self._score(language), self._split(language))
        doc.metadata["perplexity"] = round(value, 1)
        if language not in self.config.head:
            return True
        bucket = "head" if value < self.config.head[language] else "middle"
        if value >= self.config.tail[language]:
            bucket = "tail"
        doc.metadata["bucket"] = bucket
        return True if bucket in self.config.keep else (False, f"perplexity_{bucket}")

    def _score(self, language: str) -> Callable[[str], float]:
        path = self.config.models[language]
        if path not in _models:
            _models[path] = _load(path)
        score: Callable[[str], float] = _models[path].score
        return score

    def _split(self, language: str) -> Callable[[str], list[str]]:
        path = self.config.tokenizers.get(language)
        if path is None:
            return str.split
        if path not in _models:
            _models[path] = SentencePieceProcessor(model_file=path)
        split: Callable[[str], list[str]] = _models[path].encode_as_pieces
        return split


def perplexity(text: str, score: Callable[[str], float], split: Callable[[str], list[str]]) -> float:
    """CCNet's perplexity of a text: every line is a sentence, and its end counts as a word.

    Args:
        text: lines.
        score: log10 probability of a line of tokens with blanks between them.
        split: a normalised line into tokens.
    """
    total, length = 0.0, 0
    for line in text.split("\n"):
        tokens = split(normalise(line))
        if tokens:
            total += score(" ".join(tokens))
            length += len(tokens) + 1
    return float(10.0 ** min(-total / length, 300.0)) if length else float("inf")


def normalise(line: str) -> str:
    """As CCNet trains and scores its models: lower case, no accents, 0 for digits, plain punctuation."""
    text = line.strip().lower()
    if not text.isascii():
        parts = unicodedata.normalize("NFD", text)
        text = "".join([character for character in parts if unicodedata.category(character) != "Mn"])
        text = text.translate(_PUNCTUATION)
    return _CONTROL.sub("", _DIGIT.sub("0", text))


def _load(path: str) -> Any:
    if importlib.util.find_spec("kenlm") is None:
        return ArpaModel(Path(path))
    import kenlm

    return kenlm.Model(path)


def _check_file(key: str, path: str, model: bool) -> None:
    if not Path(path).is_file():
        raise UserError(
            f"{key}: {path} does not exist",
            expected="a KenLM model (.arpa or .bin)" if model else "a SentencePiece model",
            action=f"check the path; relative paths start at {Path.cwd()}",
        )
    if model and not path.endswith(".arpa") and importlib.util.find_spec("kenlm") is None:
        raise UserError(
            f"{key}: {path} is a binary model, and the package kenlm is not installed",
            expected="the package kenlm, or a model in the text form (.arpa)",
            action="pip install kenlm (it needs a C++ compiler), or name the .arpa file",
        )


def _check_limits(config: PerplexityConfig) -> None:
    for language in sorted({*config.head, *config.tail}):
        head, tail = config.head.get(language), config.tail.get(language)
        if head is None or tail is None or head > tail or language not in config.models:
            raise UserError(
                f"filters.perplexity: {language} has head {head}, tail {tail} and model {config.models.get(language)}",
                expected="a model and both limits, head not above tail",
                action="give what is missing, or leave the language out",
            )
