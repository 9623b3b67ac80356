"""The rlhf stage: a fine-tuned model and a reward or preferences -> an aligned model, measured before and after."""

from __future__ import annotations

from kit.run.directory import RunDirectory
from recipes.distributed.processes import join
from recipes.rlhf.alignment import Alignment
from recipes.rlhf.config import RlhfConfig


def run(config: RlhfConfig, run: RunDirectory) -> None:
    """Trains from the first step or the newest intact checkpoint, exports, and measures. *Collective*.

    Raises:
        UserError: If parents, data, model and processes don't fit together, or held-out prompts aren't held out.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    Alignment(config, run, join(run.target_path)).go()
