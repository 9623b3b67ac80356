"""The pretrain stage: shards -> a trained model as a Hugging Face directory."""

from __future__ import annotations

from kit.run.directory import RunDirectory
from recipes.dataset import open_datasets
from recipes.distributed.processes import join
from recipes.pretrain.config import PretrainConfig
from recipes.pretrain.source import find_source
from recipes.training.language_model import LanguageModelTraining


def run(config: PretrainConfig, run: RunDirectory) -> None:
    """Trains from the recipe's model, or from the newest intact checkpoint, to an exported model. *Collective*.

    Raises:
        UserError: If shards, model, tokenizer, layout and processes don't fit together.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    datasets = open_datasets(run, config.data.blend)
    source = find_source(config, next(iter(datasets.values())))
    LanguageModelTraining(config, run, datasets, source, join(run.target_path), export=config.export).go()
