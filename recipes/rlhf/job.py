"""What every algorithm is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kit.run.directory import RunDirectory
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation
from recipes.loop import Speed
from recipes.rlhf.config import RlhfConfig
from recipes.training.sinks import Sinks


@dataclass(frozen=True)
class Job:
    """One run of the stage.

    Attributes:
        config: The recipe.
        run: Its run directory.
        processes: The job.
        model: Directory of the parent's model, which is also the reference.
        reward: Artifacts of the reward parent; None where nothing of it is used.
        conversations: Training prompts, all short enough.
        held_out: Prompts for measuring, which nothing may train on.
        speed: What turns tokens per second into FLOP/s.
    """

    config: RlhfConfig
    run: RunDirectory
    processes: Processes
    model: Path
    reward: Path | None
    conversations: list[Conversation]
    held_out: list[Conversation]
    speed: Speed


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: The trained Hugging Face model, adapters merged; the same on every rank.
        facts: Further numbers for rlhf.json.
    """

    model: Any
    facts: dict[str, float | int]


class Training(Protocol):
    """A training that is ready to go. *Collective*: every rank makes one.

    `sinks` is where its records go; whoever calls `go` closes them.
    """

    sinks: Sinks

    def go(self) -> Trained:
        """Trains from the newest intact checkpoint, or from the start, to the last step. *Collective*: every rank.

        Raises:
            RunFailure: If the loss isn't finite, the disk is full, or the ranks don't train one model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        ...
