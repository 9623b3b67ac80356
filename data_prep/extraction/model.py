"""The classifier: two small networks in a row, trained by data_prep.extraction.train, applied with numpy alone.

The first scores a block by its text, place and elements; the second scores it again, knowing the first scores around
it. Features without words, after boilerplate detection by shallow text features (Kohlschütter et al. 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.extraction.features import Matrix, block_features
from data_prep.extraction.scan import Page
from data_prep.extraction.surroundings import surroundings

MODEL = Path(__file__).with_name("model.npz")


@dataclass(frozen=True)
class Network:
    """One hidden layer; standardisation of the input is folded into the weights."""

    hidden: Matrix
    hidden_bias: Matrix
    out: Matrix
    out_bias: Matrix

    def __call__(self, features: Matrix) -> Matrix:
        """Log odds of each row."""
        scores: Matrix = np.maximum(features @ self.hidden + self.hidden_bias, 0) @ self.out + self.out_bias
        return scores


@dataclass(frozen=True)
class Classifier:
    """Two networks for the first look (trained on halves of the pages; their mean counts) and one for the second."""

    first: tuple[Network, ...]
    second: Network
    threshold: float

    def keeps(self, page: Page) -> list[bool]:
        """Which blocks of the page are main text."""
        if not page.texts:
            return []
        spans = page.spans()
        features = block_features(page, spans)
        first: Matrix = np.mean([network(features) for network in self.first], axis=0)
        again = self.second(np.hstack([surroundings(page, spans, first), features]))
        return [bool(score > self.threshold) for score in again]


@lru_cache(maxsize=1)
def load(path: Path = MODEL) -> Classifier:
    """The classifier from its file: arrays only, no code."""
    with np.load(path, allow_pickle=False) as stored:
        networks = [
            Network(
                *(stored[f"{name}.{part}"].astype(np.float32) for part in ("hidden", "hidden_bias", "out", "out_bias"))
            )
            for name in ("first0", "first1", "second")
        ]
        return Classifier(tuple(networks[:-1]), networks[-1], float(stored["threshold"]))
