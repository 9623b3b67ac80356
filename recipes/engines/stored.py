"""Weights read straight from a checkpoint, engine by engine: one process, a tensor at a time, no engine built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from kit.errors import UserError
from recipes.model.config import ModelConfig
from recipes.stages import load_object

Stream = Iterator[tuple[str, torch.Tensor]]
"""Whole canonical tensors on the CPU, in the type that was stored, in file order."""

STORED = {
    "megatron": "recipes.engines.megatron.stored:stored_weights",
    "deepspeed": "recipes.engines.deepspeed.stored:stored_weights",
    "accelerate": "recipes.engines.stored:trained_weights",
    "reference": "recipes.engines.stored:whole_weights",
}


def stored_weights(engine: str, folder: Path, model: ModelConfig) -> Stream:
    """The weights of a checkpoint that an engine wrote.

    Raises:
        UserError: If the checkpoint is of another model, or the engine's package is missing.
    """
    read: Callable[[Path, ModelConfig], Stream] = load_object(STORED[engine])
    return read(folder, model)


def trained_weights(folder: Path, model: ModelConfig) -> Stream:
    """What the accelerate engine keeps."""
    from recipes.engines.accelerate.stepper import STATE_FILE

    return by_name(mapped(folder / STATE_FILE)["module"], folder, model)


def whole_weights(folder: Path, model: ModelConfig) -> Stream:
    """What the reference engine keeps."""
    from recipes.engines.reference import STATE_FILE

    return by_name(mapped(folder / STATE_FILE)["model"], folder, model)


def mapped(path: Path, *, weights_only: bool = True) -> Mapping[str, Mapping[str, torch.Tensor]]:
    """A file of torch's, mapped: its tensors aren't in memory before they are touched."""
    state: Mapping[str, Mapping[str, torch.Tensor]] = torch.load(
        path, map_location="cpu", mmap=True, weights_only=weights_only
    )
    return state


def by_name(state: Mapping[str, torch.Tensor], folder: Path, model: ModelConfig) -> Stream:
    """The tensors of a state dict whose names are the canonical ones.

    Raises:
        UserError: If one is missing or has another shape.
    """
    for name, shape in model.tensor_shapes().items():
        found = tuple(state[name].shape) if name in state else None
        if found != shape:
            raise UserError(
                f"{folder}: {f'no tensor {name}' if found is None else f'{name} has the shape {list(found)}'}",
                expected=f"the model in the run's config.yaml: {name} {list(shape)}",
                action="choose another step with --step",
            )
        yield name, state[name].contiguous().detach()
