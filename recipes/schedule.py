"""The learning rate of every step: pure functions of the recipe and the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator

from kit.config import Config


class ScheduleConfig(Config):
    """Linear warm-up, then the course that `kind` names, down to `minimum_ratio` of the highest rate.

    `cosine`: half a period (Loshchilov and Hutter 2017, section 3). `linear`: a straight line. `constant`: never down.
    `wsd`: warm-up, stable, decay (Hu et al. 2024, section 4): constant, then a straight line down over the last
    `decay_ratio` of what follows the warm-up.
    """

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1, description="share of the run, instead of warmup_steps")
    minimum_ratio: float = Field(default=0.1, ge=0, le=1)
    decay_ratio: float = Field(default=0.1, gt=0, le=1, description="wsd: the last share of the run")

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and warmup_ratio {self.warmup_ratio:g}; set one of them to 0"
            )
        return self

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of so many steps."""
        return self.warmup_steps or round(self.warmup_ratio * steps)


def learning_rate(config: ScheduleConfig, highest: float, step: int, steps: int) -> float:
    """The rate of step `step` of `steps` (counted from 1): `highest` at the end of warm-up, its share at the end."""
    warmup = config.warmup(steps)
    if step <= warmup:
        return highest * step / warmup
    share = _COURSES[config.kind](config, min(step, steps) - warmup, max(1, steps - warmup))
    lowest = highest * config.minimum_ratio
    return highest if share == 1.0 else lowest + (highest - lowest) * share


def _cosine(config: ScheduleConfig, done: int, length: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * (done / length)))


def _linear(config: ScheduleConfig, done: int, length: int) -> float:
    return 1.0 - done / length


def _constant(config: ScheduleConfig, done: int, length: int) -> float:
    return 1.0


def _stable_then_decay(config: ScheduleConfig, done: int, length: int) -> float:
    # The share is of what follows the warm-up, so that both always fit.
    decay = max(1, round(config.decay_ratio * length))
    return min(1.0, (length - done) / decay)


_COURSES: dict[str, Callable[[ScheduleConfig, int, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "wsd": _stable_then_decay,
}
"""Kind -> what is left of the way from the lowest to the highest rate, 1 to 0, after `done` of `length` steps."""
