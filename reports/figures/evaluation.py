"""Figure of the evaluation: bits per byte of the models that were compared."""

from collections.abc import Sequence

from reports.figures.style import BLUE, GREY, PURPLE, bar_height, bars, draw

COLORS = {"untrained model": GREY, "unigram model": PURPLE}


def bits_per_byte(rows: Sequence[tuple[str, float]], alt: str = "") -> str:
    """Returns one bar a model, (label, bits per byte) each."""
    labels, values = [r[0] for r in rows], [r[1] for r in rows]
    notes = [f"{value:.2f} bits per byte" for value in values]
    colors = [COLORS.get(label, BLUE) for label in labels]
    return draw("bits", lambda axes: bars(axes, labels, values, notes, colors), bar_height(len(rows)), alt)
