"""What of a run is exported: its finished model, or one of its checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kit.config import parse
from kit.errors import UserError
from kit.run.directory import RunDirectory
from recipes.checkpoint.manifest import CheckpointManifest, check_files, read_complete
from recipes.dataset import Dataset, open_datasets
from recipes.engines.stored import Stream, stored_weights
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds, model_config
from recipes.model.weight_files import weights_reader
from recipes.pretrain.config import PretrainConfig
from recipes.stages import STAGES, load_object
from recipes.training.source import POSITIONS, Source
from recipes.zero.config import ZeroConfig

STAGES_EXPORTED = ("pretrain", "zero")
_NAME = re.compile(r"step-(\d{8})")

Recipe = PretrainConfig | ZeroConfig


@dataclass(frozen=True)
class Described:
    """What a model directory says beside its weights."""

    model: ModelConfig
    positions: int
    ids: SpecialIds
    tokenizer: Path


@dataclass(frozen=True)
class Exported:
    """A model of a run, wherever it lies.

    Attributes:
        recipe: The run's.
        described: The model and its tokenizer.
        folder: The checkpoint, or the finished model's directory.
        manifest: What the checkpoint says of itself; None for a finished model.
        tensors: Gives the weights anew, tensor by tensor, in file order.
        left_out: Newer checkpoints that are damaged, in words.
    """

    recipe: Recipe
    described: Described
    folder: Path
    manifest: CheckpointManifest | None
    tensors: Callable[[], Stream]
    left_out: tuple[str, ...] = ()

    @property
    def step(self) -> int | None:
        """The checkpoint's step; None for a finished model."""
        return self.manifest.step if self.manifest else None


def find_exported(run: RunDirectory, step: int | None) -> Exported:
    """The checkpoint of a step; without one the finished model, or else the newest intact checkpoint.

    Raises:
        UserError: If there is none, or the run is of a stage that keeps no whole model.
    """
    recipe = read_recipe(run)
    finished = run.artifacts / "model"
    if step is None and (finished / "config.json").is_file():
        return Exported(recipe, describe(finished), finished, None, partial(_stream, finished))
    folder, manifest, left_out = find_checkpoint(run, step)
    described = _describe_run(run, recipe)
    tensors = partial(stored_weights, manifest.engine, folder, described.model)
    return Exported(recipe, described, folder, manifest, tensors, left_out)


def read_recipe(run: RunDirectory) -> Recipe:
    """The configuration of a run.

    Raises:
        UserError: If it is of another stage.
    """
    data = run.config()
    stage = str(data.get("stage"))
    if stage not in STAGES_EXPORTED:
        raise UserError(
            f"{run.id}: stage {stage}",
            expected=f"a run of stage {' or '.join(STAGES_EXPORTED)}: others write artifacts/model themselves",
            action=f"copy {run.artifacts / 'model'}, or choose another run with `slipway status`",
        )
    recipe: Recipe = parse(load_object(STAGES[stage].config), data, str(run.config_path))
    return recipe


def find_checkpoint(run: RunDirectory, step: int | None) -> tuple[Path, CheckpointManifest, tuple[str, ...]]:
    """A step's checkpoint, or the newest that is intact, and what is wrong with newer ones.

    Raises:
        UserError: If it isn't there, is damaged, or was written in another schema.
    """
    folders = {int(m.group(1)): path for path in run.checkpoints.glob("step-*") if (m := _NAME.fullmatch(path.name))}
    there = f"steps {', '.join(map(str, sorted(folders)))}" if folders else "none"
    if step is not None and step not in folders:
        raise UserError(
            f"{run.checkpoints}: no checkpoint of step {step}; there are: {there}",
            expected="a step that was kept",
            action="choose one of them, or leave --step out for the newest",
        )
    left_out: list[str] = []
    for number in [step] if step is not None else sorted(folders, reverse=True):
        found = read_complete(folders[number])
        wrong = found if isinstance(found, str) else check_files(folders[number], found.files)
        if isinstance(found, CheckpointManifest) and wrong is None:
            return folders[number], found, tuple(left_out)
        left_out.append(f"{folders[number].name}: {wrong}")
    raise UserError(
        f"{run.checkpoints}: " + ("; ".join(left_out) or "no checkpoint"),
        expected="a checkpoint whose files are as they were written"
        + (", or a finished model" if step is None else ""),
        action="choose another --step" if folders else f"bring them here with `slipway fetch {run.id} --checkpoints`",
    )


def describe(directory: Path) -> Described:
    """What a model directory that we wrote says of itself.

    Raises:
        UserError: If it is no whole model directory.
    """
    model = model_config(directory)
    settings: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    positions = next(int(settings[key]) for key in POSITIONS if settings.get(key))
    ids = SpecialIds(settings["eos_token_id"], settings["pad_token_id"])
    return Described(model, positions, ids, directory)


def _describe_run(run: RunDirectory, recipe: Recipe) -> Described:
    """The model of a run's checkpoints: by what it wrote before its first step, or else as the stage found it."""
    untrained = run.artifacts / "untrained"
    if (untrained / "config.json").is_file():
        return describe(untrained)
    dataset = held_out(run, recipe)
    source = _source(run, recipe, dataset)
    card = dataset.card.tokenizer
    positions = max(source.positions, recipe.data.sequence_length)
    return Described(source.model, positions, SpecialIds(card.eod_id, card.pad_id), dataset.tokenizer)


def held_out(run: RunDirectory, recipe: Recipe) -> Dataset:
    """The dataset of a run, or the first of its blend.

    Raises:
        UserError: If it isn't there any more.
    """
    return next(iter(open_datasets(run, recipe.data.blend).values()))


def _source(run: RunDirectory, recipe: Recipe, dataset: Dataset) -> Source:
    if isinstance(recipe, PretrainConfig):
        from recipes.pretrain.source import find_source

        return find_source(recipe, dataset)
    from recipes.zero.source import find_source as find_zero_source

    return find_zero_source(recipe, run, dataset)


def _stream(directory: Path) -> Stream:
    model = model_config(directory)
    read = weights_reader(directory, model.tensor_shapes())
    return ((name, read(name)) for name in model.tensor_shapes())
