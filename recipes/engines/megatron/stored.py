"""Weights read straight from a checkpoint of this engine: by one process, tensor by tensor, whatever layout wrote them.

Neither megatron-core nor a model is needed: the checkpoint is torch's own distributed format, and every weight lies in
it whole, under a key of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from kit.errors import UserError
from recipes.engines.megatron.weights import Rule, layer_rules, outer_rules
from recipes.model.config import ModelConfig


class _Reader(dcp.FileSystemReader):
    """A reader that reads the list of all tensors once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._known: Metadata | None = None

    def read_metadata(self, *arguments: object, **keywords: object) -> Metadata:
        """The list of all tensors."""
        if self._known is None:
            self._known = super().read_metadata()
        return self._known


def stored_weights(folder: Path, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole canonical tensors on the CPU, in the type that they were trained in, in file order.

    Raises:
        UserError: If the checkpoint is of another model.
    """
    reader = _Reader(folder)
    for keys, rule in _groups(model):
        found = [_read(reader, folder, keys)]
        yield from zip(rule.canonical, rule.join(found), strict=True)


def _groups(model: ModelConfig) -> Iterator[tuple[list[str], Rule]]:
    """Every rule once, in file order, with the keys that its parameter may have: a fused norm has another name."""
    rules = [(key, rule) for key, rule in outer_rules(model).items()]
    for layer in range(model.layers):
        rules += [(f"decoder.layers.{layer}.{name}", rule) for name, rule in layer_rules(model, layer).items()]
    by_first: dict[str, tuple[list[str], Rule]] = {}
    for key, rule in rules:
        by_first.setdefault(rule.canonical[0], ([], rule))[0].append(key)
    for name in model.tensor_shapes():
        if name in by_first:
            yield by_first[name]


def _read(reader: _Reader, folder: Path, keys: list[str]) -> torch.Tensor:
    entries = reader.read_metadata().state_dict_metadata
    key = next((key for key in keys if key in entries), None)
    entry = entries[key] if key is not None else None
    if key is None or not isinstance(entry, TensorStorageMetadata):
        raise UserError(
            f"{folder}: no tensor {keys[0]}",
            expected="a checkpoint of the model in the run's config.yaml",
            action="choose another step with --step",
        )
    state = {key: torch.empty(entry.size, dtype=entry.properties.dtype)}
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state[key]
