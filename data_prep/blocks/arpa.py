"""A plain reader of ARPA n-gram models, for machines without the kenlm package: slow, but the same numbers."""

from __future__ import annotations

import gzip
from pathlib import Path

from kit.errors import UserError

_MISSING_UNKNOWN = -100.0  # KenLM's for models without <unk>


class ArpaModel:
    """Scores sentences by back-off (Katz 1987): the longest n-gram that is known counts.

    Args:
        path: an ARPA file, plain or gzip; it is held in memory whole.

    Raises:
        UserError: the file is no ARPA model.
    """

    def __init__(self, path: Path) -> None:
        self.ngrams: dict[tuple[str, ...], tuple[float, float]] = {}
        opener = gzip.open if path.suffix == ".gz" else open
        order = 0
        try:
            with opener(path, "rt", encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    if line.startswith("\\"):
                        order = int(line[1:-8]) if line.rstrip().endswith("-grams:") else 0
                    elif order and (text := line.rstrip("\n")):
                        self._add(text, order)
        except (OSError, ValueError, IndexError) as error:
            raise _no_model(path, str(error)) from error
        if not self.ngrams:
            raise _no_model(path, "it has no n-gram")
        self.order = max(map(len, self.ngrams))

    def _add(self, line: str, order: int) -> None:
        fields = line.replace("\t", " ").split(" ")
        words = tuple(fields[1 : order + 1])
        if len(words) != order:
            raise ValueError(f"a line with {len(words)} words among {order}-grams")
        self.ngrams[words] = float(fields[0]), float(fields[order + 1]) if len(fields) > order + 1 else 0.0

    def score(self, sentence: str) -> float:
        """log10 probability of a sentence of words with blanks between them, its end included."""
        context: tuple[str, ...] = ("<s>",)
        total = 0.0
        for word in [*sentence.split(), "</s>"]:
            word = word if (word,) in self.ngrams else "<unk>"
            total += self._probability(context, word)
            context = (*context, word)[1 - self.order :] if self.order > 1 else ()
        return total

    def _probability(self, context: tuple[str, ...], word: str) -> float:
        backoff = 0.0
        while True:
            found = self.ngrams.get((*context, word))
            if found is not None:
                return backoff + found[0]
            if not context:
                return backoff + _MISSING_UNKNOWN
            backoff += self.ngrams.get(context, (0.0, 0.0))[1]
            context = context[1:]


def _no_model(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is no ARPA model ({why})",
        expected="the text form of an n-gram model, as KenLM's lmplz writes it",
        action="name another file; binary models need the package kenlm",
    )
