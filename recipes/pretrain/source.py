"""Where the model of a pretraining run comes from: first weights, or a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

from recipes.dataset import Dataset
from recipes.pretrain.config import PretrainConfig
from recipes.training.source import Source, check_agrees, first_weights, weights_of


def find_source(config: PretrainConfig, dataset: Dataset) -> Source:
    """The model that a recipe names.

    Raises:
        UserError: If `start_from` isn't a whole directory of a family that is known, has another tokenizer than the
            shards, or isn't what `model` says.
    """
    if config.start_from is None:
        assert config.model is not None, "the configuration asks for one of the two"
        return first_weights(config.model, config, dataset)
    directory = Path(config.start_from)
    source = weights_of(directory, dataset, config.data.sequence_length)
    return source if config.model is None else check_agrees(config.model, source, "start_from", directory)
