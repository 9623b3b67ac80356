"""Where the first weights of a model come from: drawn from the seed, or read from a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from kit.errors import UserError
from kit.files import require_file
from recipes.dataset import Dataset
from recipes.model.config import ModelConfig
from recipes.model.families import model_config
from recipes.model.init import first_tensor
from recipes.model.tokenizer import check_same_tokenizer
from recipes.model.weight_files import weights_reader
from recipes.training.config import TrainingConfig

POSITIONS = ("max_position_embeddings", "n_positions")
RECIPE_DECIDES = ("dropout", "init_std")
"""Keys of a model that are no property of its weights: a recipe and the directory that it starts from may differ."""


class Source(NamedTuple):
    """A model, what gives its weights by name, and the longest sequence it was made for so far."""

    model: ModelConfig
    weights: Callable[[str], torch.Tensor]
    positions: int


def first_weights(model: ModelConfig, config: TrainingConfig, dataset: Dataset) -> Source:
    """A model that begins: weights are a function of the recipe's seed, the vocabulary is the shards' unless stated."""
    sized = model.with_vocab(dataset.card.tokenizer.vocab_size, config.data.sequence_length)
    return Source(sized, partial(first_tensor, sized, config.seed), 0)


def weights_of(directory: Path, dataset: Dataset, sequence_length: int) -> Source:
    """A model that goes on from a directory: Llama or GPT-2, from wherever; no rank reads more than it asks for.

    Raises:
        UserError: If the directory isn't whole, is of another family, has another tokenizer than the shards, or is for
            shorter sequences.
    """
    model = model_config(directory)
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = require_file(dataset.folder / dataset.card.tokenizer.file, "the tokenizer of the shards").parent
    check_same_tokenizer(directory, tokenizer, "the shards' tokenizer")
    if model.positions is not None and model.positions < sequence_length:
        raise UserError(
            f"{directory}: a table of {model.positions} positions, and data.sequence_length is {sequence_length}",
            expected="a row for every position",
            action=f"set data.sequence_length to {model.positions} or less",
        )
    positions = next((int(settings[key]) for key in POSITIONS if settings.get(key)), 0)
    return Source(model, weights_reader(directory, model.tensor_shapes()), positions)


def check_agrees(model: ModelConfig, source: Source, key: str, directory: Path) -> Source:
    """Holds a recipe's own `model` against the one that it starts from; its dropout is the recipe's.

    Raises:
        UserError: If they are two models; names the key.
    """
    for name in ModelConfig.model_fields:
        wanted, found = getattr(model, name), getattr(source.model, name)
        if wanted not in (None, found) and name not in RECIPE_DECIDES:
            raise UserError(
                f"model.{name} is {wanted}, and that of the model in {key}, {directory}, is {found}",
                expected="one model",
                action=f"leave `model` out (the directory's is taken), or set model.{name}={found}",
            )
    return source._replace(model=source.model.model_copy(update={"dropout": model.dropout}))
