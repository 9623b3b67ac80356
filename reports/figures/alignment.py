"""Figures of instruction tuning and alignment: rewards and KL over steps, and before beside after."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from reports.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SOFT, VERMILION, bar_height, bars, draw
from reports.figures.training import line, step_axis

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
MOST_POINTS = 60  # rewards of sampled answers are noisy: from here on a running mean is drawn over them


@dataclass(frozen=True)
class Curve:
    """One quantity over steps."""

    label: str
    points: Sequence[tuple[int, float]]


def over_steps(
    name: str, curves: Sequence[Curve], measure: str, alt: str = "", levels: Sequence[tuple[str, float]] = ()
) -> str:
    """Returns curves over optimizer steps, with dashed lines at the levels (label, value)."""

    def paint(axes: Axes) -> None:
        for curve, color in zip(curves, COLORS, strict=False):
            line(axes, curve.points, color, curve.label, MOST_POINTS)
        for label, value in levels:
            axes.axhline(value, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
            axes.annotate(
                label, (0, value), xycoords=("axes fraction", "data"), xytext=(3, 3), textcoords="offset points",
                fontsize=9.5, color=SOFT,
            )  # fmt: skip
        if levels:
            low, high = axes.get_ylim()
            least, most = min(value for _, value in levels), max(value for _, value in levels)
            axes.set_ylim(min(low, least - 0.06 * (high - low)), max(high, most + 0.1 * (high - low)))
        step_axis(axes)
        axes.set_ylabel(measure)
        axes.margins(x=0.01)
        if len(curves) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)

    return draw(name, paint, alt=alt)


def before_after(
    name: str, rows: Sequence[tuple[str, float, str]], alt: str = "", top: tuple[str, float] | None = None
) -> str:
    """Returns a bar a row (label, value, note), the first ones grey, the last blue; a dashed line marks the top."""

    def paint(axes: Axes) -> None:
        colors = ([GREY] * (len(rows) - 1) + [BLUE])[-len(rows) :]
        largest = max([top[1] if top else 0.0, 1e-12, *[value for _, value, _ in rows]])
        bars(axes, [label for label, _, _ in rows], [value for _, value, _ in rows], [""] * len(rows), colors)
        for place, (_, value, note) in enumerate(rows):
            inside = value > 0.25 * largest
            axes.annotate(
                note, (value, place), xytext=(-6 if inside else 5, 0), textcoords="offset points", va="center",
                ha="right" if inside else "left", color="white" if inside else INK, fontsize=10.5,
            )  # fmt: skip
        axes.set_xlim(0, largest * 1.25)
        if top:
            axes.axvline(top[1], color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
            axes.annotate(
                top[0], (top[1], 1), xycoords=("data", "axes fraction"), xytext=(5, -2), textcoords="offset points",
                fontsize=9.5, color=SOFT, va="top",
            )  # fmt: skip

    return draw(name, paint, bar_height(len(rows)), alt)


def outcomes(name: str, wins: int, ties: int, losses: int, alt: str = "") -> str:
    """Returns one bar cut into wins, ties and losses."""

    def paint(axes: Axes) -> None:
        total, begin = wins + ties + losses, 0.0
        for label, count, color in (("wins", wins, GREEN), ("ties", ties, "#cbd2d9"), ("losses", losses, VERMILION)):
            axes.barh([0], [count], left=[begin], height=0.62, color=color)
            if count:
                middle = begin + count / 2
                inside = count > 0.12 * total
                axes.annotate(
                    f"{label} {count}" if inside else str(count), (middle, 0), ha="center", va="center",
                    fontsize=10.5, color="white" if color != "#cbd2d9" else INK,
                )  # fmt: skip
            begin += count
        axes.axvline(total / 2, color=INK, linestyle=(0, (2, 2)), linewidth=1.0)
        axes.set_xlim(0, max(total, 1))
        axes.set_ylim(-0.5, 0.5)
        axes.axis("off")

    return draw(name, paint, 0.8, alt)
