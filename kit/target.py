"""Where a job runs: the target file, read by the launcher and (resolved) by every rank."""

from __future__ import annotations

from typing import Literal

import pydantic

from kit.config import Config
from kit.hardware import available_cores


class Target(Config):
    """A place that runs jobs. `auto` values are settled by `settle` before a run directory keeps them."""

    kind: Literal["local"] = "local"
    devices_per_host: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads_per_process: int | Literal["auto"] = "auto"
    restarts: int = pydantic.Field(default=0, ge=0)
    stop_grace_seconds: float = pydantic.Field(default=120.0, gt=0)

    def settle(self, processes: int, accelerators: int) -> Target:
        """Returns the target without `auto`.

        Args:
            processes: Number of ranks that this job starts on the machine.
            accelerators: Number of CUDA devices that the machine has.
        """
        device = self.device if self.device != "auto" else ("cuda" if accelerators else "cpu")
        cores = available_cores()
        # Ranks that share a machine fight for cores, and a curve over 1 and 2 ranks compares only at one thread each.
        threads = self.threads_per_process if self.threads_per_process != "auto" else (1 if processes > 1 else cores)
        devices = self.devices_per_host
        if devices == "auto":
            devices = accelerators if device == "cuda" else max(cores, 2)
        return self.model_copy(update={"device": device, "threads_per_process": threads, "devices_per_host": devices})
