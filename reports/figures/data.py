"""Figures of a data preparation run: the funnel of blocks, the reasons of drops, the languages."""

from collections.abc import Sequence

from reports.figures.style import BLUE, GREEN, SKY, VERMILION, bar_height, bars, draw

MOST_BARS = 12


def funnel(rows: Sequence[tuple[str, int, str]], alt: str = "") -> str:
    """Returns the documents left after each block; rows are (block, documents, note), the input first."""
    labels, documents, notes = [r[0] for r in rows], [float(r[1]) for r in rows], [r[2] for r in rows]
    colors = [SKY] + [BLUE] * max(0, len(rows) - 2) + [GREEN]
    return draw(
        "funnel", lambda axes: bars(axes, labels, documents, notes, colors[: len(rows)]), bar_height(len(rows)), alt
    )


def ranking(name: str, rows: Sequence[tuple[str, float, str]], alt: str = "", drops: bool = False) -> str:
    """Returns bars of the largest rows, (label, value, note) each; what doesn't fit is summed as "others"."""
    ordered = sorted(rows, key=lambda row: (-row[1], row[0]))
    shown, rest = ordered[:MOST_BARS], ordered[MOST_BARS:]
    if rest:
        total = sum(row[1] for row in rest)
        shown = [*shown, (f"{len(rest)} others", total, f"{total:,.0f}")]
    labels, values, notes = [r[0] for r in shown], [r[1] for r in shown], [r[2] for r in shown]
    colors = [VERMILION if drops else BLUE] * len(shown)
    return draw(name, lambda axes: bars(axes, labels, values, notes, colors), bar_height(len(shown)), alt)
