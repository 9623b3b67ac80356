"""Figures of one training run: loss and throughput over steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.figures.style import BLUE, FAINT, GREY, ORANGE, PURPLE, SOFT, VERMILION, count_axis, draw
from reports.scaling import Spread

SMOOTHING_POINTS = 200  # curves with more points than this are drawn pale, with a running mean over them


@dataclass(frozen=True)
class Level:
    """A horizontal reference line."""

    label: str
    value: float


def loss_curve(
    train: Sequence[tuple[int, float]],
    validation: Sequence[tuple[int, float]],
    levels: Sequence[Level],
    alt: str = "",
    name: str = "loss",
    measure: str = "loss (nats per token)",
) -> str:
    """Returns the loss over steps, training and validation, with reference levels."""

    def paint(axes: Axes) -> None:
        if train:
            line(axes, train, BLUE, "training")
        if validation:
            steps, losses = zip(*validation, strict=True)
            axes.plot(steps, losses, color=VERMILION, marker="o", markersize=4.5, label="validation", zorder=4)
        _levels(axes, levels)
        step_axis(axes)
        axes.set_ylabel(measure)
        axes.margins(x=0.01)
        if train or validation:
            # Over the axes: inside, it would hide a curve or a level in one run or another.
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)

    return draw(name, paint, alt=alt)


def step_axis(axes: Axes) -> None:
    """Whole steps along the bottom."""
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def line(axes: Axes, points: Sequence[tuple[int, float]], color: str, label: str, most: int = SMOOTHING_POINTS) -> None:
    """One curve over steps; where it has more than `most` points, pale with a running mean over it."""
    steps, values = zip(*points, strict=True)
    if len(steps) <= most:
        axes.plot(steps, values, color=color, label=label)
        return
    window = max(5, len(steps) // 50)
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    means = [math.fsum(values[i - window + 1 : i + 1]) / window for i in range(window - 1, len(values))]
    axes.plot(
        steps[window // 2 : window // 2 + len(means)], means, color=color, label=f"{label} (mean of {window} steps)"
    )


def _levels(axes: Axes, levels: Sequence[Level]) -> None:
    for level, color in zip(levels, (GREY, PURPLE, ORANGE), strict=False):
        axes.axhline(level.value, color=color, linestyle=(0, (4, 3)), linewidth=1.2, zorder=2)
        axes.annotate(
            f"{level.label}: {level.value:.2f}",
            (1, level.value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9.5,
            color=SOFT,
        )
    if levels:
        low, high = axes.get_ylim()
        axes.set_ylim(low, max(high, max(level.value for level in levels) + 0.08 * (high - low)))


def throughput(rates: Sequence[tuple[int, float]], found: Spread, alt: str = "") -> str:
    """Returns tokens per second over steps, with the warm-up steps shaded and the median of the rest as a line."""

    def paint(axes: Axes) -> None:
        steps, values = zip(*rates, strict=True)
        few = len(steps) <= SMOOTHING_POINTS
        axes.plot(steps, values, color=BLUE, linewidth=1.2, marker="o" if few else "", markersize=2.5)
        if found.warm_up:
            axes.axvspan(steps[0] - 0.5, steps[found.warm_up - 1] + 0.5, color=FAINT, zorder=0, label="warm-up")
        axes.axhspan(found.low, found.high, color=ORANGE, alpha=0.18, zorder=1, linewidth=0, label="middle half")
        axes.axhline(found.median, color=VERMILION, linewidth=1.4, label=f"median {found.median:,.0f}")
        step_axis(axes)
        axes.set_ylabel("tokens per second")
        axes.set_ylim(0, max(values) * 1.25)
        axes.margins(x=0.01)
        count_axis(axes.yaxis)
        axes.legend(loc="lower right", ncols=3)

    return draw("throughput", paint, alt=alt)
