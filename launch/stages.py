"""Every stage that can be launched: its configuration model, the module that runs it, and how it runs."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, NamedTuple

from kit.config import Config
from kit.errors import UserError
from recipes.stages import STAGES as RECIPE_STAGES


class LaunchStage(NamedTuple):
    """How a stage is launched.

    Attributes:
        config: its configuration model, written `module:attribute`.
        module: what `python -m` runs with the run directory as its argument.
        parallel: whether torchrun starts it, one process a rank; else it is one process that may fork its own workers.
        spread: the dotted key that says on how many hosts a stage that is not parallel runs, one process on each, told
            its number with `--host N --hosts M`; auto: all that the target names, where they share its storage. Empty:
            on one.
        inputs: the dotted keys that name its input files, which belong to the key of a run; none: only parents.
        checkpoints: whether going on after a stop needs a checkpoint; else the stage skips what it finds finished.
    """

    config: str
    module: str
    parallel: bool
    spread: str = ""
    inputs: tuple[str, ...] = ()
    checkpoints: bool = True


STAGES: dict[str, LaunchStage] = {
    "data_prep": LaunchStage(
        "data_prep.config:DataPrepConfig",
        "data_prep",
        parallel=False,
        spread="execute.hosts",
        inputs=(
            "input.paths",
            "url_filter.domains",
            "url_filter.urls",
            "url_filter.banned_words",
            "url_filter.soft_banned_words",
            "filters.bad_words.files",
            "filters.perplexity.models",
            "filters.perplexity.tokenizers",
            "decontaminate.paths",
            "tokenizer.file",
            "tokenizer.compare_with",
        ),
        checkpoints=False,
    ),
    **{
        name: LaunchStage(stage.config, "recipes", parallel=True, inputs=stage.inputs)
        for name, stage in RECIPE_STAGES.items()
    },
}


def stage_called(name: Any, source: str) -> LaunchStage:
    """The stage with a name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name in STAGES:
        return STAGES[name]
    near = difflib.get_close_matches(str(name), STAGES, n=1, cutoff=0.5)
    raise UserError(
        f"{source}: `stage` is {name!r}" if name is not None else f"{source}: `stage` is missing",
        expected=f"one of: {', '.join(STAGES)}",
        action=f"did you mean `{near[0]}`?" if near else "write one of them",
    )


def config_model(stage: LaunchStage) -> type[Config]:
    """The configuration model of a stage; imports only its torch-free config module."""
    module, attribute = stage.config.split(":")
    model: type[Config] = getattr(import_module(module), attribute)
    return model
