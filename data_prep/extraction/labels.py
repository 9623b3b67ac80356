"""Which blocks of a page belong to its main text, told from a text that somebody or something extracted from it."""

from __future__ import annotations

import re
from collections import Counter

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_GRAM = 4
_NEAR = 3  # short blocks count when a long one so near counts


def tokens(text: str) -> list[str]:
    """Lower-case words; of scripts without spaces, characters."""
    return _TOKEN.findall(text.lower())


def label(texts: list[str], gold: str) -> list[float]:
    """For each block the share of it that is in the gold text, 0 to 1.

    Long blocks by their runs of four tokens; short ones, whose words may stand anywhere, only where they are a line
    of the gold text or stand in it as they are and beside a block that counts.
    """
    gold_tokens = tokens(gold)
    grams = set(zip(*(gold_tokens[shift:] for shift in range(_GRAM)), strict=False))
    lines = {" ".join(tokens(line)) for line in gold.splitlines()}
    whole = f" {' '.join(gold_tokens)} "
    values: list[float | None] = []
    short: dict[int, str] = {}
    for number, text in enumerate(texts):
        mine = tokens(text)
        if len(mine) > _GRAM + 1:
            runs = list(zip(*(mine[shift:] for shift in range(_GRAM)), strict=False))
            values.append(sum(run in grams for run in runs) / len(runs))
            continue
        values.append(None)
        short[number] = " ".join(mine)
    repeated = Counter(short.values())
    for number, words in short.items():
        near = [value for value in values[max(0, number - _NEAR) : number + _NEAR + 1] if value is not None]
        beside = bool(near) and max(near) > 0.5
        is_line = words in lines and (beside or repeated[words] == 1)
        values[number] = float(bool(words) and (is_line or (beside and f" {words} " in whole)))
    return [value or 0.0 for value in values]
