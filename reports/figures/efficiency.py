"""Figures of the scaling report."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from reports.figures.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILION, count_axis, draw
from reports.scaling import ScalingPoint

COLOR_OF_AXIS = {"data": BLUE, "tensor": VERMILION, "pipeline": GREEN}
MARKER_OF_AXIS = {"data": "o", "tensor": "s", "pipeline": "^"}


def axis_of(point: ScalingPoint) -> str:
    """The axis that a point splits over: data, tensor, pipeline, mixed, or "" for one process."""
    split = [axis for axis in ("data", "tensor", "pipeline") if getattr(point, axis) > 1]
    return "" if not split else split[0] if len(split) == 1 else "mixed"


def speed_against_ideal(points: Sequence[ScalingPoint], alt: str = "") -> str:
    """Returns tokens per second over processes, one line a way of splitting, with the ideal line from the baseline."""
    compared = [p for p in points if p.efficiency is not None and p.tokens_per_second]
    base = min(compared, key=lambda p: abs((p.speedup or 0.0) - 1.0) + p.processes)

    def paint(axes: Axes) -> None:
        counts = sorted({p.processes for p in compared})
        rate = base.tokens_per_second or 0.0
        ideal = [rate * n / base.processes for n in counts]
        axes.plot(counts, ideal, color=GREY, linestyle=(0, (4, 3)), linewidth=1.4, label="ideal")
        for axis in ("data", "tensor", "pipeline", "mixed"):
            _line_of_axis(axes, axis, base, [p for p in compared if axis_of(p) == axis and p is not base])
        _with_error(axes, [base], INK, "D", f"{base.label} (baseline)")
        axes.set_xticks(counts)
        axes.set_xlim(counts[0] - 0.25, counts[-1] + 0.25)
        axes.set_ylim(0, max([*ideal, *[p.tokens_per_second_high or 0.0 for p in compared]]) * 1.12)
        axes.set_xlabel("processes, one machine")
        axes.set_ylabel("tokens per second")
        count_axis(axes.yaxis)
        axes.legend(loc="lower right")

    return draw("scaling-speed", paint, alt=alt)


def _line_of_axis(axes: Axes, axis: str, base: ScalingPoint, points: list[ScalingPoint]) -> None:
    if not points:
        return
    color = COLOR_OF_AXIS.get(axis, PURPLE)
    best = {p.processes: p for p in sorted(points, key=lambda p: p.tokens_per_second or 0.0)}
    line = [base, *[best[n] for n in sorted(best)]]
    axes.plot([p.processes for p in line], [p.tokens_per_second or 0.0 for p in line], color=color, linewidth=1.6)
    name = "mixed" if axis == "mixed" else f"{axis} parallel"
    _with_error(axes, points, color, MARKER_OF_AXIS.get(axis, "v"), name)


def _with_error(axes: Axes, points: list[ScalingPoint], color: str, marker: str, label: str) -> None:
    middles = [p.tokens_per_second or 0.0 for p in points]
    below = [m - (p.tokens_per_second_low or m) for m, p in zip(middles, points, strict=True)]
    above = [(p.tokens_per_second_high or m) - m for m, p in zip(middles, points, strict=True)]
    counts = [p.processes for p in points]
    axes.errorbar(
        counts, middles, yerr=[below, above], fmt=marker, color=color, markersize=7, capsize=4, label=label, zorder=5
    )


def _whiskers(axes: Axes, points: Sequence[ScalingPoint]) -> None:
    """From the lowest to the highest round, where a point has several and is not the baseline."""
    for place, point in enumerate(points):
        if point.efficiency is None or point.efficiency_low is None or point.efficiency_high is None:
            continue
        if point.label != point.baseline:
            axes.vlines(
                place, 100 * point.efficiency_low, 100 * point.efficiency_high, color=INK, linewidth=1.6, zorder=5
            )


def efficiency_bars(points: Sequence[ScalingPoint], alt: str = "") -> str:
    """Returns the efficiency of every compared point beside the ideal 100 %."""
    compared = [p for p in points if p.efficiency is not None]

    def paint(axes: Axes) -> None:
        labels = [p.label.replace(" x ", "\nx ").replace(" parallel", "\nparallel", 1) for p in compared]
        heights = [100.0 * (p.efficiency or 0.0) for p in compared]
        colors = [COLOR_OF_AXIS.get(axis_of(p), PURPLE) if axis_of(p) else GREY for p in compared]
        axes.bar(range(len(compared)), heights, color=colors, width=0.6)
        _whiskers(axes, compared)
        for place, (point, height) in enumerate(zip(compared, heights, strict=True)):
            top = max(height, 100.0 * (point.efficiency_high or 0.0))
            axes.annotate(f"{height:.0f} %", (place, top), (0, 4), textcoords="offset points", ha="center")
        axes.axhline(100, color=GREY, linestyle=(0, (4, 3)), linewidth=1.4)
        axes.set_xticks(range(len(compared)), labels)
        axes.set_ylim(0, max(120.0, *heights) * 1.05)
        axes.set_ylabel("efficiency (% of ideal)")
        axes.grid(False, axis="x")
        axes.tick_params(axis="x", length=0)

    return draw("scaling-efficiency", paint, alt=alt)
