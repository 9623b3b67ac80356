"""The pretrain stage: shards -> a trained model as a Hugging Face directory."""

from __future__ import annotations

from functools import partial

from kit.run.directory import RunDirectory
from recipes.dataset import open_dataset
from recipes.distributed.processes import join
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig
from recipes.training.language_model import LanguageModelTraining


def run(config: PretrainConfig, run: RunDirectory) -> None:
    """Trains from first weights, or from the newest intact checkpoint, to an exported model. *Collective*.

    Raises:
        UserError: If shards, model, layout and processes don't fit together.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    dataset = open_dataset(run)
    model = config.model.with_vocab(dataset.card.tokenizer.vocab_size)
    first_weights = partial(first_tensor, model, config.seed)
    LanguageModelTraining(config, run, dataset, model, first_weights, join(run.target_path), export=config.export).go()
