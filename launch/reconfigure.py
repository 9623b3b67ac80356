"""A run goes on under another layout: what may change, the check before anything is touched, and the record of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.config import dump, parse, resolve, to_data
from kit.errors import UserError
from kit.files import atomic_write
from kit.layout import Layout
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.run.manifest import parent_path
from kit.target import Target
from launch.plan import Plan, make_plan
from launch.planner.models import check_model_of
from launch.planner.prediction import predict
from launch.planner.shown import warning_lines
from launch.stages import config_model, stage_called

MAY_CHANGE = (
    "layout",
    "data.micro_batch_samples",
    "optimizer.distributed",
    "recompute",
    "cuda",
    "validation.every_steps",
    "checkpoint",
    "instability",
    "logging",
)
"""Keys, and sections whole, that don't change what is learnt. The rest makes another model, and so another run."""

OF_TARGET = ("hosts", "devices_per_host", "threads_per_process", "restarts", "stop_grace_seconds")
ANY_LAYOUT = ("megatron",)
"""Engines whose checkpoints can be read under another layout than the one that wrote them."""

BOUND = ("layout", "optimizer.distributed")
"""What such a checkpoint is read under whatever it is now, and the checkpoints of other engines are not."""


@dataclass(frozen=True)
class Change:
    """Another configuration for a run, checked; nothing is written yet.

    Attributes:
        config: The whole of config.yaml.
        target: The whole of target.yaml.
        values: Dotted key -> the old and the new value; the target's keys begin with `target.`.
        predicted: What its manifest would say of memory, time and cost.
    """

    config: dict[str, Any]
    target: Target
    values: dict[str, tuple[Any, Any]]
    predicted: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """In words: one line a key, then what the prediction warns of."""
        changed = [f"{key} {_word(old)} -> {_word(new)}" for key, (old, new) in self.values.items()]
        return [*changed, *warning_lines(self.predicted)]


def plan_change(run: RunDirectory, sets: Sequence[str], target_sets: Sequence[str] = ()) -> Change:
    """What a run would be with other values, checked as a new run's plan is. Touches nothing.

    Args:
        run: One that has ended early.
        sets: `a.b=c` assignments on its configuration.
        target_sets: `a=b` assignments on its target.

    Raises:
        UserError: A key that may not change, a value that is wrong, a layout that doesn't fit model or target.
    """
    stage = stage_called(run.manifest().stage, str(run.manifest_path))
    model, source = config_model(stage), str(run.config_path)
    before = to_data(parse(model, run.config(), source))
    after = to_data(parse(model, resolve(run.config_path, sets), source))
    values = differences(before, after)
    _check_keys(run, values)
    _check_engine(run, values, str(before.get("engine")))
    target_sets = _settled_anew(before, after, run, target_sets)
    plan = make_plan(str(run.config_path), str(run.target_path), sets, target_sets=target_sets)
    changed = differences(to_data(parse(Target, resolve(run.target_path), str(run.target_path))), to_data(plan.target))
    changed.pop("usd_per_hour", None)  # a price of today is no change of ours
    _check_target(changed)
    predicted = _foreseen(plan, run)
    values |= {f"target.{key}": pair for key, pair in changed.items()}
    return Change(after, plan.target, values, predicted)


def apply_change(run: RunDirectory, change: Change) -> None:
    """Write a change down: what was is kept as config-before-N.yaml, an event `reconfigured` tells old and new."""
    if not change.values:
        return
    number = 1 + len(list(run.path.glob("config-before-*.yaml")))
    kept = {}
    for path in (run.config_path, run.target_path):
        copy = path.with_name(f"{path.stem}-before-{number}.yaml")
        shutil.copyfile(path, copy)
        kept[path.stem] = copy.name
    # The event first: a crash in between leaves a change that was told and not made, never one that nobody told.
    changes = {key: list(pair) for key, pair in change.values.items()}
    append_event(run, "reconfigured", changes=changes, kept=kept, predicted=change.predicted)
    atomic_write(run.config_path, dump(change.config))
    atomic_write(run.target_path, dump(change.target))


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) of every value that differs; sections are gone into where both have them."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found


def _check_keys(run: RunDirectory, values: Mapping[str, tuple[Any, Any]]) -> None:
    for key, (old, new) in values.items():
        if _is_one_of(key, MAY_CHANGE):
            continue
        recipe = run.manifest().plan.get("recipe", "RECIPE")
        raise UserError(
            f"--set {key}={_word(new)}: {run.id} has {key} {_word(old)}, and a run that goes on keeps it",
            expected=f"only what doesn't change what is learnt: {', '.join(MAY_CHANGE)}",
            action=f"leave it out, or start a new run: `slipway run {recipe} --set {key}={_word(new)}`",
        )


def _check_engine(run: RunDirectory, values: Mapping[str, Any], engine: str) -> None:
    bound = [key for key in values if _is_one_of(key, BOUND)]
    if not bound or engine in ANY_LAYOUT:
        return
    raise UserError(
        f"--set {bound[0]}: {run.id} is of engine {engine}, whose checkpoints go on only as they were written",
        expected=f"the {bound[0].partition('.')[0]} it began with; another only for engine {' or '.join(ANY_LAYOUT)}",
        action=f"go on with `slipway resume {run.id}` alone, or start a new run",
    )


def _check_target(changed: Mapping[str, Any]) -> None:
    for key in changed:
        if key not in OF_TARGET:
            raise UserError(
                f"--target-set {key}: a run that goes on keeps its place",
                expected=f"one of: {', '.join(OF_TARGET)}",
                action="leave it out, or start a new run with `slipway run RECIPE --on TARGET`",
            )


def _settled_anew(
    before: Mapping[str, Any], after: Mapping[str, Any], run: RunDirectory, target_sets: Sequence[str]
) -> list[str]:
    """The assignments on the target; with another number of ranks on this machine each one's threads change too."""
    ranks = [parse(Layout, data.get("layout") or {}, str(run.config_path)).world_size for data in (before, after)]
    given = [text.partition("=")[0] for text in target_sets]
    here = parse(Target, resolve(run.target_path), str(run.target_path)).kind == "local"
    if here and ranks[0] != ranks[1] and "threads_per_process" not in given:
        return ["threads_per_process=auto", *target_sets]
    return list(target_sets)


def _foreseen(plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """The prediction, after the check against what only the parents know."""
    places = {name: parent_path(run, parent) for name, parent in run.manifest().parents.items()}
    parents = {name: RunDirectory(path) for name, path in places.items() if (path / "manifest.json").is_file()}
    check_model_of(plan, parents)
    return predict(plan, parents, run.path.parent)


def _is_one_of(key: str, allowed: Sequence[str]) -> bool:
    return any(key == other or key.startswith(other + ".") for other in allowed)


def _word(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
