"""What a block's neighbours and containers were thought to be at first: input of the second look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.extraction.features import Matrix
from data_prep.extraction.scan import Integers, Page

_REACH = 4  # blocks before and after whose first score is seen one by one
_WINDOWS = (5, 12)  # and on average
_LEVELS = 5  # containers around a block


def surroundings(page: Page, spans: tuple[Integers, Integers], first: Matrix) -> Matrix:
    """One row a block from the first scores (log odds): shape [blocks, features]."""
    characters = np.array([len(text) for text in page.texts], dtype=np.float64)
    likely = characters / (1 + np.exp(-first.astype(np.float64)))
    total = likely.sum() + 1e-6
    before = np.concatenate([[0.0], np.cumsum(likely)])
    text = np.concatenate([[0.0], np.cumsum(characters)])
    columns: list[NDArray[Any]] = [
        first,
        *_beside(first),
        *_containers(page, spans, before, text),
        *_windows(before, text),
    ]
    blocks = len(first)
    columns += [
        before[:-1] / total,
        np.full(blocks, np.log1p(total) / 10),
        np.full(blocks, total / characters.sum()),
        np.full(blocks, (likely / characters).max()),
    ]
    return np.column_stack(columns).astype(np.float32)


def _beside(first: Matrix) -> list[Matrix]:
    padded = np.full(len(first) + 2 * _REACH, -4.0, dtype=np.float32)
    padded[_REACH:-_REACH] = first
    return [padded[shift : shift + len(first)] for shift in range(2 * _REACH + 1) if shift != _REACH]


def _containers(
    page: Page, spans: tuple[Integers, Integers], before: NDArray[np.float64], text: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Of every container: how much of it is main text, and how much of the main text it holds."""
    (first, last), parents, at = spans, np.array(page.parents), np.array(page.holders)
    total = before[-1] + 1e-6
    columns = []
    for _ in range(_LEVELS):
        low, high = first[at], last[at]
        inside = before[high] - before[low]
        columns += [inside / np.maximum(text[high] - text[low], 1), inside / total]
        at = parents[at]
    return columns


def _windows(before: NDArray[np.float64], text: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    blocks = len(before) - 1
    columns = []
    for width in _WINDOWS:
        low = np.maximum(np.arange(blocks) - width, 0)
        high = np.minimum(np.arange(blocks) + width + 1, blocks)
        columns.append((before[high] - before[low]) / np.maximum(text[high] - text[low], 1))
    return columns
