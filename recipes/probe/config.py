"""Configuration of the probe stage. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from kit.layout import Layout


class ProbeConfig(Config):
    """What is measured between ranks. The backend is the one that training uses: gloo on CPU, NCCL on CUDA."""

    stage: Literal["probe"] = "probe"
    name: str
    parents: dict[str, str] = {}
    layout: Layout = Layout()
    order: Literal["one_by_one", "at_once"] = Field(
        default="one_by_one", description="at_once: pairs without a rank in common measure at the same time"
    )
    bandwidth_bytes: int | None = Field(
        default=None, ge=4096, description="message of the bandwidth; empty: 4 MiB on CPU, 256 MiB on CUDA"
    )
    bandwidth_repeats: int = Field(default=5, ge=1)
    latency_bytes: int = Field(default=8, ge=4, le=4096)
    latency_repeats: int = Field(default=100, ge=1)
    passes: int = Field(default=3, ge=1, description="measurements of a pair, with a pause between; the best counts")
    timeout_minutes: float = Field(default=3.0, gt=0, description="how long the ranks wait for one another")

    @model_validator(mode="after")
    def _data_axis_alone(self) -> Self:
        if self.layout.world_size != self.layout.data or self.layout.interleave > 1 or self.layout.sequence:
            raise ValueError(
                f"layout {self.layout.describe()} for a probe, which has no model to cut; set layout.data alone"
            )
        return self
