"""The learning rate of every step."""

from __future__ import annotations

import math

from pydantic import Field

from kit.config import Config


class ScheduleConfig(Config):
    """Linear warm-up, then a cosine down to a share of the highest rate (Loshchilov and Hutter 2017, section 3)."""

    warmup_steps: int = Field(default=0, ge=0)
    minimum_ratio: float = Field(default=0.1, ge=0, le=1)


def learning_rate(config: ScheduleConfig, highest: float, step: int, steps: int) -> float:
    """The rate of step `step` of `steps` (counted from 1): `highest` at the end of warm-up, its share at the end."""
    if step <= config.warmup_steps:
        return highest * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    lowest = highest * config.minimum_ratio
    return lowest + (highest - lowest) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
