"""The sft stage: a language model and conversations -> a model that answers, as a Hugging Face directory."""

from __future__ import annotations

from kit.run.directory import RunDirectory
from recipes.distributed.processes import join
from recipes.sft.config import SftConfig
from recipes.sft.tuning import Tuning


def run(config: SftConfig, run: RunDirectory) -> None:
    """Tunes the model from its weights, or from the newest intact checkpoint. *Collective*.

    Raises:
        UserError: If data, model, template, layout and processes don't fit together.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    Tuning(config, run, join(run.target_path)).go()
