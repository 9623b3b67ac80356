"""What the classifier is told of each block: its text in numbers, its place, its elements, and the blocks around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.extraction.elements import BITS
from data_prep.extraction.scan import Integers, Page

Matrix = NDArray[np.float32]

_SENTENCE_ENDS = frozenset(".!?。！？…:：;；\"”»')）")
_FULL_STOPS = frozenset(".!?。！？…")
_ODD_STARTS = frozenset("»›←→‹«|<>[](){}#@©+*•·-–—/\\")
TEXT_FEATURES = 16
CONTEXT = 2  # blocks before and after whose features a block sees
_NEIGHBOURLY = 5  # columns of a block's text that its neighbours see, too
_LEVELS = 4  # containers around a block whose text is summed


def block_features(page: Page, spans: tuple[Integers, Integers]) -> Matrix:
    """One row a block: shape [blocks, features], about 0 to 1 each; `spans` are the page's."""
    texts = _text_features(page)
    characters = np.maximum(texts[:, 0], 1.0)
    linked = np.minimum(texts[:, 1], characters)
    own = [_numbers(texts, characters, linked), _place(page, spans, characters, linked)]
    parts: list[NDArray[Any]] = [*own, *_neighbours(own[0][:, :_NEIGHBOURLY]), _elements(page)]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _text_features(page: Page) -> NDArray[np.float64]:
    rows = []
    for text, linked in zip(page.texts, page.links, strict=True):
        count = text.count
        last, first = text[-1], text[0]
        plain = text.isascii()
        rows.append(
            (
                len(text),
                linked,
                len(text) if plain else len(text.encode("utf-8", "surrogatepass")),
                count(" ") + 1,
                count(", ") + (0 if plain else count("，") + count("、")),
                count(". ") + (0 if plain else count("。") + count("！") + count("？")) + (last in _FULL_STOPS),
                last in _SENTENCE_ENDS,
                last in _FULL_STOPS,
                first.isupper(),
                first.isdigit(),
                first in _ODD_STARTS,
                count("|") + count("»") + count("©") + count("›") + count("•") + count("·"),
                count("1") + count("2") + count("0") + count("9"),
                text.isupper(),
                count("\n"),
                "@" in text or "http" in text,
            )
        )
    return np.array(rows, dtype=np.float64).reshape(-1, TEXT_FEATURES)


def _numbers(
    texts: NDArray[np.float64], characters: NDArray[np.float64], linked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A block's text; lengths as logarithms. The first _NEIGHBOURLY columns are what neighbours see."""
    octets, words = texts[:, 2], texts[:, 3]
    density = linked / characters
    return np.column_stack(
        [
            np.log1p(octets) / 8,
            density,
            np.log1p(texts[:, 4] + texts[:, 5]) / 4,
            texts[:, 7],
            np.log1p(octets * (1 - density)) / 8,
            linked > 0,
            np.log1p(words) / 6,
            octets / characters - 1,
            np.minimum(characters / words, 20) / 20,
            texts[:, 6],
            texts[:, 8:11],
            np.log1p(texts[:, 11]),
            np.minimum(texts[:, 12] / characters, 1),
            texts[:, 13],
            np.log1p(texts[:, 14]) / 4,
            texts[:, 15],
            texts[:, 5] / np.maximum(octets / 60, 1),
        ]
    )


def _place(
    page: Page, spans: tuple[Integers, Integers], characters: NDArray[np.float64], linked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Position in the page, and the text of the containers around the block."""
    blocks, total = len(characters), characters.sum()
    order = (np.arange(blocks) + 0.5) / blocks
    read = (np.cumsum(characters) - characters / 2) / total
    plain = characters - linked
    columns = [
        order,
        read,
        np.full(blocks, np.log1p(blocks) / 8),
        np.full(blocks, np.log1p(total) / 12),
        np.full(blocks, linked.sum() / total),
        np.full(blocks, np.log1p(characters.max()) / 8),
    ]
    (first, last), parents, at = spans, np.array(page.parents), np.array(page.holders)
    running = np.zeros((blocks + 1, 2))
    np.cumsum(np.column_stack([characters, plain]), axis=0, out=running[1:])
    for _ in range(_LEVELS):
        low, high = first[at], last[at]
        text, unlinked = (running[high] - running[low]).T
        count = high - low
        columns += [text / total, unlinked / np.maximum(text, 1), np.log1p(text / count) / 8, np.log1p(count) / 8]
        at = parents[at]
    return np.column_stack(columns)


def _neighbours(seen: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    blocks, columns = seen.shape
    padded = np.zeros((blocks + 2 * CONTEXT, columns))
    padded[CONTEXT:-CONTEXT] = seen
    shifts = [shift for shift in range(2 * CONTEXT + 1) if shift != CONTEXT]
    return [padded[shift : shift + blocks] for shift in shifts]


def _elements(page: Page) -> NDArray[np.uint8]:
    """Bits of the block's element, of it and its parent, and of everything around it."""
    holders = np.array(page.holders)
    bits = np.array(page.bits, dtype="<i8")
    near = bits[holders] | bits[np.array(page.parents)[holders]]
    around = np.array(page.inherited, dtype="<i8")[holders]
    octets = np.stack([bits[holders], near, around], axis=1).view(np.uint8).reshape(-1, 3, 8)
    return np.unpackbits(octets, axis=2, bitorder="little")[:, :, :BITS].reshape(-1, 3 * BITS)
