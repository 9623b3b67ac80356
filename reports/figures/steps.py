"""Figures of the steps of a run: where their time went, and the losses of the sources of a blend."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, draw
from reports.figures.training import line, step_axis

MOST_BARS = 60
PART_COLORS = {
    "compute": BLUE,
    "communication": VERMILION,
    "data": GREEN,
    "checkpoint": PURPLE,
    "evaluation": ORANGE,
    "idle": GREY,
}
SOURCE_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)

Curve = Sequence[tuple[int, float]]


def step_time(parts: Mapping[str, Curve], alt: str = "") -> str:
    """Returns the seconds of a step by part, stacked; where there are many steps, the mean of some at a time.

    Args:
        parts: Part -> (step, seconds), of the same steps.
        alt: The figure in words.
    """

    def paint(axes: Axes) -> None:
        steps = [step for step, _ in next(iter(parts.values()))]
        size = math.ceil(len(steps) / MOST_BARS)
        groups = [range(begin, min(begin + size, len(steps))) for begin in range(0, len(steps), size)]
        places = [(steps[group[0]] + steps[group[-1]]) / 2 for group in groups]
        below = [0.0] * len(groups)
        for part, curve in parts.items():
            heights = [math.fsum(curve[place][1] for place in group) / len(group) for group in groups]
            axes.bar(places, heights, width=0.9 * size, bottom=below, color=PART_COLORS[part], label=part)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        step_axis(axes)
        axes.set_ylabel("seconds of a step")
        axes.margins(x=0.01)
        # Over the axes: inside, it would hide bars.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return draw("step-time", paint, alt=alt)


def source_losses(train: Mapping[str, Curve], validation: Mapping[str, Curve], alt: str = "") -> str:
    """Returns the loss of every source over steps: a line for training, points for validation."""

    def paint(axes: Axes) -> None:
        colors = dict(zip(dict.fromkeys([*train, *validation]), cycle(SOURCE_COLORS), strict=False))
        for name, color in colors.items():
            if train.get(name):
                line(axes, train[name], color, name)
            if validation.get(name):
                steps, losses = zip(*validation[name], strict=True)
                axes.plot(steps, losses, color=color, marker="o", markersize=4.5, linestyle="", zorder=4)
        step_axis(axes)
        axes.set_ylabel("loss (nats per token)")
        axes.margins(x=0.01)
        # Losses fall, so the upper right is free, whatever the sources are called and however many there are.
        axes.legend([Line2D([], [], color=color) for color in colors.values()], list(colors), loc="upper right")

    return draw("source-loss", paint, alt=alt)
