"""A chain file becomes a list of planned stages with their keys: pure, so that every error comes before any work."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from kit.config import Config, load
from kit.errors import UserError
from kit.run.directory import RunDirectory
from launch.origin import find_parent, run_key
from launch.plan import Plan, make_plan


class ChainStageConfig(Config):
    """One stage of a chain.

    Attributes:
        id: what `--set` and the parents of later stages call it.
        recipe: path or short name.
        role: what the run is for other than its product: `scaling`.
        parents: parent's name -> the id of an earlier stage, or a run reference.
        set: keys that replace the recipe's.
        target: keys that replace the target's.
        repeats: how often the same run is done, to show how much a measurement varies.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    recipe: str
    role: str | None = None
    parents: dict[str, str] = {}
    set: dict[str, Any] = {}
    target: dict[str, Any] = {}
    repeats: int = Field(default=1, ge=1)


class ChainConfig(Config):
    """Stages in the order in which they run."""

    name: str
    stages: list[ChainStageConfig] = Field(min_length=1)


@dataclass(frozen=True)
class PlannedStage:
    """One run of a chain, ready to be started or found.

    Attributes:
        id: the stage's id; repetitions have a number behind it.
        plan: what would run.
        key: its reuse key.
        stages: parent's name -> id of the stage of this chain that makes it.
        runs: parent's name -> run that was there before.
        role: see ChainStageConfig.
    """

    id: str
    plan: Plan
    key: str
    stages: dict[str, str]
    runs: dict[str, RunDirectory]
    role: str | None


def plan_chain(path: Path, root: Path, target: str, sets: Sequence[str]) -> tuple[str, list[PlannedStage]]:
    """Plan every stage of a chain.

    Args:
        path: the chain file.
        root: the folder of runs, where parents from outside the chain are looked for.
        target: path or short name of the target.
        sets: `stage.a.b=c` assignments.

    Returns:
        The chain's name and its stages in order.

    Raises:
        UserError: the chain or one of its recipes is wrong, or a parent from outside is missing.
    """
    config = load(ChainConfig, path)
    by_stage = _sets_by_stage(sets, [stage.id for stage in config.stages], path)
    planned: list[PlannedStage] = []
    for stage, repeat in _in_rounds(config.stages):
        assignments = [*_as_assignments(stage.set), *by_stage.get(stage.id, [])]
        plan = make_plan(stage.recipe, target, assignments, stage.parents, _as_assignments(stage.target))
        name = stage.id if stage.repeats == 1 else f"{stage.id}-{repeat}"
        planned.append(_planned(name, stage, plan, planned, root, repeat))
    return config.name, planned


def _in_rounds(stages: Sequence[ChainStageConfig]) -> Iterator[tuple[ChainStageConfig, int]]:
    """Neighbours with equal repeats take turns (a b a b): a machine whose speed drifts then favours none of them."""
    for repeats, group in itertools.groupby(stages, key=lambda stage: stage.repeats):
        members = list(group)
        for repeat in range(1, repeats + 1):
            yield from ((stage, repeat) for stage in members)


def _planned(
    name: str, stage: ChainStageConfig, plan: Plan, earlier: Sequence[PlannedStage], root: Path, repeat: int
) -> PlannedStage:
    keys = {other.id: other.key for other in earlier}
    if name in keys:
        raise UserError(f"two stages called {name!r}", expected="every id once", action="rename one of them")
    inside = {parent: reference for parent, reference in plan.parents.items() if reference in keys}
    outside = {
        parent: find_parent(root, parent, reference, plan.recipe)
        for parent, reference in plan.parents.items()
        if parent not in inside
    }
    parent_keys = {parent: keys[reference] for parent, reference in inside.items()}
    parent_keys |= {parent: run.manifest().key for parent, run in outside.items()}
    return PlannedStage(name, plan, run_key(plan, parent_keys, repeat), inside, outside, stage.role)


def _as_assignments(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _sets_by_stage(sets: Sequence[str], ids: Sequence[str], path: Path) -> dict[str, list[str]]:
    """`stage.key=value` by stage, without the stage."""
    found: dict[str, list[str]] = {}
    for text in sets:
        stage, dot, rest = text.partition(".")
        if not dot or stage not in ids:
            near = difflib.get_close_matches(stage.partition("=")[0], ids, n=1, cutoff=0.5)
            raise UserError(
                f"--set {text!r}: {path.name} has no stage {stage.partition('=')[0]!r}",
                expected=f"stage.key=value, with one of the stages {', '.join(ids)}",
                action=f"did you mean `{near[0]}`?" if near else "write the id of a stage in front of the key",
            )
        found.setdefault(stage, []).append(rest)
    return found
