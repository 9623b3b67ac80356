"""Figures of a scaling study: efficiency over ranks, one line a way of splitting, and where the time of a step goes."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from reports.figures.efficiency import COLOR_OF_AXIS, MARKER_OF_AXIS, axis_of
from reports.figures.style import BLUE, GREY, INK, ORANGE, PURPLE, SKY, SOFT, VERMILION, bar_height, draw
from reports.scaling import ScalingPoint

PARTS = (
    ("compute_seconds", "computation", BLUE),
    ("communication_seconds", "communication", VERMILION),
    ("data_seconds", "data", ORANGE),
    ("other_seconds", "other", GREY),
)
GAP = 0.075  # between the names at the ends of lines, as a share of the height
SHIFT_POINTS = 5.0  # lines stand beside each other, so that their intervals can be told apart


def line_name(point: ScalingPoint, several_recipes: bool = False) -> str:
    """What a point's line is called: the way of splitting, and the recipe where there are several."""
    name = f"ZeRO-{point.zero_stage}" if point.zero_stage is not None else axis_of(point)
    recipe = point.recipe.rpartition("/")[2].removesuffix(".yaml")
    return f"{name}, {recipe}" if several_recipes and recipe else name


def line_color(point: ScalingPoint) -> str:
    """ZeRO has a color of its own."""
    return PURPLE if point.zero_stage is not None else COLOR_OF_AXIS.get(axis_of(point), SKY)


def efficiency_over_ranks(
    name: str, points: Sequence[ScalingPoint], start: int, limits: tuple[float, float], alt: str = ""
) -> str:
    """Returns efficiency in percent over ranks, from the baseline's 100 % on `start` ranks.

    Args:
        name: Of the figure.
        points: Of one mode on one link, without the baseline.
        start: Ranks of the baseline.
        limits: Of the vertical axis in percent, alike in figures that are compared.
        alt: What is seen, in words.
    """
    several = len({point.recipe for point in points if point.zero_stage is None}) > 1
    lines: dict[str, list[ScalingPoint]] = {}
    for point in sorted(points, key=lambda point: point.processes):
        lines.setdefault(line_name(point, several), []).append(point)
    counts = sorted({start, *(point.processes for point in points)})
    place = {count: number for number, count in enumerate(counts)}

    def paint(axes: Axes) -> None:
        axes.axhline(100, color=GREY, linestyle=(0, (4, 3)), linewidth=1.4)
        axes.annotate("ideal", (0, 100), (3, 4), textcoords="offset points", fontsize=9.5, color=SOFT)
        ends: list[tuple[float, str, str]] = []
        for number, (label, line) in enumerate(lines.items()):
            _one_line(axes, line, place, start, (number - (len(lines) - 1) / 2) * SHIFT_POINTS)
            last = 100 * (line[-1].efficiency or 0.0)
            early = f" on {line[-1].processes}" if line[-1].processes < counts[-1] else ""
            ends.append((last, f"{label} {last:.0f} %{early}", line_color(line[-1])))
        _name_ends(axes, ends, len(counts) - 1, limits)
        axes.plot([0], [100], marker="D", markersize=7, color=INK, zorder=6, clip_on=False)
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set_xlim(-0.12, len(counts) - 1 + 0.62 * max(len(counts) - 1, 1))
        axes.set_ylim(*limits)
        axes.set_xlabel("ranks")
        axes.set_ylabel("efficiency (% of ideal)")
        axes.spines["bottom"].set_bounds(-0.12, len(counts) - 0.9)

    return draw(name, paint, alt=alt)


def _one_line(axes: Axes, line: list[ScalingPoint], place: dict[int, int], start: int, shift: float) -> None:
    """A line from the baseline, with the intervals of its points."""
    color = line_color(line[0])
    # A shift of a few points on paper, whatever the width of the axis.
    aside = shift / 220 * max(len(place) - 1, 1)
    across = [float(place[start]), *(place[point.processes] + aside for point in line)]
    heights = [100.0, *(100 * (point.efficiency or 0.0) for point in line)]
    axes.plot(across, heights, color=color, linewidth=1.8, zorder=3)
    marker = MARKER_OF_AXIS.get(axis_of(line[0]), "v") if line[0].zero_stage is None else "D"
    axes.plot(across[1:], heights[1:], color=color, marker=marker, markersize=6.5, linestyle="", zorder=5)
    for x, point in zip(across[1:], line, strict=True):
        if point.interval_low is not None and point.interval_high is not None:
            axes.vlines(x, 100 * point.interval_low, 100 * point.interval_high, color=color, linewidth=1.3, zorder=4)


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], last: int, limits: tuple[float, float]) -> None:
    """The name of every line at its end, in its color, pushed apart where ends are close."""
    gap, reached = GAP * (limits[1] - limits[0]), limits[0] - 1.0
    shift = 0.1 * max(last, 1)
    for height, words, color in sorted(ends):
        reached = max(height, reached + gap)
        axes.text(last + shift, reached, words, color=color, va="center", fontsize=10.5, fontweight="bold")


def step_parts(name: str, rows: Sequence[tuple[str, ScalingPoint]], longest: float, alt: str = "") -> str:
    """Returns one bar a point: the mean step in seconds, cut into computation, communication, data and the rest.

    Args:
        name: Of the figure.
        rows: Label and point, first on top.
        longest: Seconds that the width stands for, alike in figures that are compared.
        alt: What is seen, in words.
    """
    unit, scale = ("ms", 1e3) if longest < 1 else ("s", 1.0)

    def paint(axes: Axes) -> None:
        begin = [0.0] * len(rows)
        for key, part, color in PARTS:
            widths = [scale * (getattr(point, key) or 0.0) for _, point in rows]
            axes.barh(range(len(rows)), widths, left=begin, height=0.68, color=color, label=part)
            begin = [start + width for start, width in zip(begin, widths, strict=True)]
        for number, (end, (_, point)) in enumerate(zip(begin, rows, strict=True)):
            share = point.communication_share
            words = f"{100 * share:.0f} % comm." if share is not None else "comm. not measured"
            axes.text(end + 0.012 * scale * longest, number, words, va="center", fontsize=10, color=SOFT)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, scale * longest * 1.36)
        axes.set_xlabel(f"mean step ({unit})")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(PARTS),
            columnspacing=1.0,
            handlelength=1,
            fontsize=9.5,
        )

    return draw(name, paint, bar_height(len(rows)) + 0.75, alt)
