"""Whether an exported directory is the model of the checkpoint: their logits on held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from kit.layout import Layout
from kit.target import Target
from recipes.data import Ids, SampleStream
from recipes.dataset import Dataset
from recipes.distributed.processes import Processes, choose_device, join_store
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.export.source import Exported
from recipes.model.weight_files import WRITTEN
from recipes.training.export import LARGEST_DIFFERENCE, export_difference

SAMPLES = 2
TOLERANCE = LARGEST_DIFFERENCE[torch.float32]
OWN_LOADING = ("megatron",)
"""Engines that load in one process what any number of ranks wrote. Others' weights go into the plain model."""


def held_out_tokens(exported: Exported, dataset: Dataset) -> Ids:
    """The first samples of the held-out part [samples, length]."""
    stream = SampleStream(dataset.tokens("validation"), exported.recipe.data.sequence_length, seed=0, shuffle=False)
    return stream.batch(0, 0, min(SAMPLES, len(stream))).tokens


def alone() -> Processes:
    """A job of this one process, on its best device."""
    return join_store(dist.HashStore(), 0, 1, choose_device(Target(), 0))


def largest_difference(exported: Exported, directory: Path, dtype: str, tokens: Ids, processes: Processes) -> float:
    """The largest difference between the logits of the checkpoint in its engine and of the directory in transformers.

    Both compute in fp32, in one process, whatever layout and precision the run had. The engine's weights are rounded
    first to what the directory's are stored as, so that a difference is never a matter of rounding.
    """
    engine = _engine(exported, processes)
    if dtype != "fp32":
        rounded = {name: tensor.to(WRITTEN[dtype][1]).float() for name, tensor in engine.stream_weights()}
        engine.load_weights(rounded.__getitem__)
    return export_difference(engine, directory, tokens, processes)


def _engine(exported: Exported, processes: Processes) -> Engine:
    recipe, model = exported.recipe, exported.described.model
    own = recipe.engine in OWN_LOADING
    changes = {"layout": Layout(), "engine": recipe.engine if own else "reference", "precision": "fp32"}
    engine = build_engine(recipe.model_copy(update=changes), model, processes, torch.float32)
    if own and exported.manifest is not None:
        engine.load_state(exported.folder)
    else:
        weights: Mapping[str, torch.Tensor] = dict(exported.tensors())
        engine.load_weights(weights.__getitem__)
    return engine
