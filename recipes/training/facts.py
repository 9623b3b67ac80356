"""What every stage that trains says of its job in the summary that it leaves."""

from __future__ import annotations

from typing import Any

from kit.run.directory import RunDirectory
from kit.run.events import read_events
from recipes.distributed.processes import Processes
from recipes.training.config import TrainingConfig


def job_facts(config: TrainingConfig, run: RunDirectory, processes: Processes) -> dict[str, Any]:
    """Layout, processes, device, precision, recomputation, engine, and the steps after which the run went on."""
    return {
        "layout": config.layout.model_dump(),
        "world_size": processes.world_size,
        "threads_per_process": processes.threads,
        "device": processes.device_words,
        "precision": config.precision,
        "recompute": config.recompute,
        "engine": config.engine,
        "resumed_from": [event["step"] for event in read_events(run) if event["event"] == "resumed"],
    }
