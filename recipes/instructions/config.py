"""Configuration of instruction data. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recipes.training.config import DataConfig


class InstructionDataConfig(DataConfig):
    """Which conversations a stage reads, and how they become batches: one conversation a sample, padded."""

    files: list[str] = Field(
        min_length=1, description="JSONL or JSON lists, plain, .gz or .xz; a pattern may name several"
    )
    format: Literal["auto", "alpaca", "messages"] = "auto"
    held_out_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="of the distinct prompts, chosen by their hash"
    )
