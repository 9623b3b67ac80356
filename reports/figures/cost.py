"""Figures of what the stages cost: time, memory, and what each rank owns."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from reports.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, bar_height, bars, draw

COLOR_OF_KIND = {"": BLUE, "scaling": SKY, "reused": ORANGE}
COLORS_OF_PARTS = (BLUE, GREEN, ORANGE, PURPLE, VERMILION, SKY, GREY)


def by_stage(name: str, rows: Sequence[tuple[str, float, str, str]], alt: str = "") -> str:
    """Returns one bar a stage; rows are (label, value, note, kind), kind "" | scaling | reused."""
    labels, values, notes = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    colors = [COLOR_OF_KIND.get(row[3], BLUE) for row in rows]
    return draw(name, lambda axes: bars(axes, labels, values, notes, colors), bar_height(len(rows)), alt)


def stacked(
    name: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    parts: Sequence[str],
    show: Callable[[float], str],
    alt: str = "",
) -> str:
    """Returns bars of parts put end to end, (label, value of every part) each, with the sum behind them."""

    def paint(axes: Axes) -> None:
        sums = [sum(values) for _, values in rows]
        bars(axes, [label for label, _ in rows], sums, [show(total) for total in sums], ["white"] * len(rows))
        begin = [0.0] * len(rows)
        for number, part in enumerate(parts):
            widths = [values[number] for _, values in rows]
            color = COLORS_OF_PARTS[number % len(COLORS_OF_PARTS)]
            axes.barh(range(len(rows)), widths, left=begin, height=0.68, color=color, label=part)
            begin = [start + width for start, width in zip(begin, widths, strict=True)]
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(4, len(parts)))

    return draw(name, paint, bar_height(len(rows)) + 0.35 * (1 + (len(parts) - 1) // 4), alt)


def against_prediction(
    name: str, rows: Sequence[tuple[str, float, float]], show: Callable[[float], str], alt: str = ""
) -> str:
    """Returns measured bars with the prediction as a mark; rows are (label, measured, predicted)."""

    def paint(axes: Axes) -> None:
        labels, measured = [r[0] for r in rows], [r[1] for r in rows]
        largest = max([*measured, *[r[2] for r in rows]])
        bars(axes, labels, measured, [""] * len(rows), [BLUE] * len(rows))
        for place, (_, value, predicted) in enumerate(rows):
            axes.vlines(predicted, place - 0.42, place + 0.42, color=INK, linewidth=2.2, zorder=5)
            note = f"{show(value)}, predicted {show(predicted)}"
            axes.text(max(value, predicted) + largest * 0.02, place, note, va="center", fontsize=10)
        axes.set_xlim(0, largest * 2.1)

    return draw(name, paint, bar_height(len(rows)), alt)
