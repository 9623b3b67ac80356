"""Figures of a corpus: what stayed of what came in, by language and by length."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from kit.units import format_count
from reports.figures.style import BLUE, INK, SKY, VERMILION, bar_height, bars, count_axis, draw

MOST_TICKS = 8  # that fit side by side under the bars


def before_and_after(name: str, rows: Sequence[tuple[str, float, float, str]], alt: str = "") -> str:
    """Returns bars of what came in, with what stayed drawn over them; rows are (label, came in, stayed, note)."""

    def paint(axes: Axes) -> None:
        labels, came, notes = [r[0] for r in rows], [max(r[1], r[2]) for r in rows], [r[3] for r in rows]
        bars(axes, labels, came, notes, [SKY] * len(rows))
        axes.barh(range(len(rows)), [r[2] for r in rows], color=BLUE, height=0.68)
        _legend(axes, {"came in": SKY, "kept": BLUE})

    return draw(name, paint, bar_height(len(rows)) + 0.35, alt)


def in_order(name: str, rows: Sequence[tuple[str, float, str]], colors: Sequence[str], alt: str = "") -> str:
    """Returns one bar a row in the order given; rows are (label, value, note)."""
    labels, values, notes = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    return draw(name, lambda axes: bars(axes, labels, values, notes, list(colors)), bar_height(len(rows)), alt)


def lengths(name: str, kept: Mapping[int, int], dropped: Mapping[int, int], alt: str = "") -> str:
    """Returns documents by length; the keys are where bins begin, each twice the one before."""
    places = {begin: place for place, begin in enumerate(_bins(kept, dropped))}

    def paint(axes: Axes) -> None:
        for shift, counts, color in ((-0.2, kept, BLUE), (0.2, dropped, VERMILION)):
            found = [(places[begin] + shift, count) for begin, count in counts.items() if count]
            axes.bar([place for place, _ in found], [count for _, count in found], width=0.4, color=color)
        step = -(-len(places) // MOST_TICKS)
        shown = [begin for place, begin in enumerate(places) if place % step == 0]
        # A tick stands at the left edge of its bin: where the length is just that.
        axes.set_xticks([places[begin] - 0.5 for begin in shown], [_short(begin) for begin in shown])
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.set_xlabel("characters")
        axes.set_ylabel("documents")
        axes.grid(visible=False, axis="x")
        count_axis(axes.yaxis)
        _legend(axes, {"kept": BLUE, "dropped": VERMILION})

    return draw(name, paint, 3.0, alt)


def _bins(*histograms: Mapping[int, int]) -> list[int]:
    """Every bin from the shortest to the longest document, empty ones too."""
    found = sorted(begin for counts in histograms for begin, count in counts.items() if count)
    bins = found[:1]
    while bins and bins[-1] < found[-1]:
        bins.append(max(1, 2 * bins[-1]))
    return bins


def _short(characters: int) -> str:
    return f"{characters:,}" if characters < 100_000 else format_count(characters)


def _legend(axes: Axes, colors: Mapping[str, str]) -> None:
    patches = [axes.bar(0, 0, color=color, label=label) for label, color in colors.items()]
    axes.legend(handles=patches, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(colors), labelcolor=INK)
