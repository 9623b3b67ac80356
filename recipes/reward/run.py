"""The reward stage: a fine-tuned model and rules, or pairs of answers -> a model that scores answers."""

from __future__ import annotations

from kit.run.directory import RunDirectory
from recipes.distributed.processes import join
from recipes.reward.config import RewardConfig
from recipes.reward.training import RewardTraining


def run(config: RewardConfig, run: RunDirectory) -> None:
    """Makes pairs and trains from the parent's weights, or goes on from the newest intact checkpoint. *Collective*.

    Raises:
        UserError: If data, rules, model, template, layout and processes don't fit together.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    RewardTraining(config, run, join(run.target_path)).go()
