"""Where the model of a zero run comes from: first weights, a directory, or a parent's export."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kit.errors import UserError
from kit.files import require_file
from kit.run.directory import RunDirectory
from recipes.dataset import Dataset, parent_artifacts
from recipes.model.config import ModelConfig
from recipes.model.families import model_config
from recipes.model.init import first_tensor
from recipes.model.tokenizer import check_same_tokenizer
from recipes.model.weight_files import weights_reader
from recipes.zero.config import ZeroConfig


class Source(NamedTuple):
    """A model, what gives its weights by name, and the longest sequence it was made for so far."""

    model: ModelConfig
    weights: Callable[[str], torch.Tensor]
    positions: int


def find_source(config: ZeroConfig, run: RunDirectory, dataset: Dataset) -> Source:
    """The model that a recipe names.

    Raises:
        UserError: If its directory isn't there, is of another family, or has another tokenizer than the shards.
    """
    if config.model is not None:
        model = config.model.with_vocab(dataset.card.tokenizer.vocab_size)
        return Source(model, partial(first_tensor, model, config.seed), 0)
    directory = Path(config.model_path) if config.model_path else parent_artifacts(run, "model") / "model"
    model = model_config(directory)
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    _check_plain(directory, settings, model)
    tokenizer = require_file(dataset.folder / dataset.card.tokenizer.file, "the tokenizer of the shards").parent
    check_same_tokenizer(directory, tokenizer, "the shards' tokenizer")
    return Source(model, weights_reader(directory), int(settings.get("max_position_embeddings") or 0))


def _check_plain(directory: Path, settings: dict[str, Any], model: ModelConfig) -> None:
    """Refuses what the reference model doesn't compute; it would train another function than the weights are of."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    found = {
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "hidden_act": (settings.get("hidden_act", "silu"), "silu"),
        "head_dim": (settings.get("head_dim") or model.head_dim, model.head_dim),
    }
    wrong = [f"{key} {value!r}" for key, (value, wanted) in found.items() if value != wanted]
    if wrong:
        raise UserError(
            f"{directory / 'config.json'}: {', '.join(wrong)}",
            expected=", ".join(f"{key} {wanted!r}" for key, (_, wanted) in found.items()),
            action="choose a plain Llama model, or fine-tune this one with stage sft",
        )
