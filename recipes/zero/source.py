"""Where the model of a zero run comes from: first weights, a directory, or a parent's export."""

from __future__ import annotations

from pathlib import Path

from kit.run.directory import RunDirectory
from recipes.dataset import Dataset, parent_artifacts
from recipes.training.source import Source, first_weights, weights_of
from recipes.zero.config import ZeroConfig


def find_source(config: ZeroConfig, run: RunDirectory, dataset: Dataset) -> Source:
    """The model that a recipe names.

    Raises:
        UserError: If its directory isn't there, is of another family, or has another tokenizer than the shards.
    """
    if config.model is not None:
        return first_weights(config.model, config, dataset)
    directory = Path(config.model_path) if config.model_path else parent_artifacts(run, "model") / "model"
    return weights_of(directory, dataset, config.data.sequence_length)
