"""A scaling study: which points are measured. Every point is planned, or left out with the reason, before any runs.

A point is a recipe, split over so many ranks along one axis, on one target. Strong scaling keeps the recipe's global
batch on every number of ranks (Amdahl 1967); weak scaling keeps the batch of each rank (Gustafson 1988), so that the
global batch grows from the recipe's own, which the smallest number of ranks has.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from kit.config import Config, load, resolve
from kit.errors import UserError
from kit.hardware import available_cores
from kit.target import Target
from launch.chain_plan import PlannedStage
from launch.origin import MissingParent, find_parent, run_key
from launch.plan import Plan, make_plan
from launch.planner.models import check_model_of
from launch.recipe_files import find_recipe, find_target

Mode = Literal["strong", "weak"]
Split = Literal["data", "tensor", "pipeline"]
AXES = ("data", "tensor", "pipeline", "context")
STAGES = ("pretrain", "zero")
ROLE = "scaling"
ONE_THREAD = "threads_per_process=1"


class StudyConfig(Config):
    """What a study varies.

    Attributes:
        recipes: Paths or short names; of stage pretrain or zero.
        targets: The places, which may differ in their link.
        ranks: The numbers of ranks.
        modes: strong: the same global batch; weak: the same batch per rank.
        splits: The axes that ranks are put along, one at a time.
        repeats: How often every point is measured; the points take turns.
        steps: Optimizer steps of a measurement; empty: as the recipe says.
        sets: Keys that replace the recipes'.
        parents: Run references that replace the recipes'.
    """

    recipes: list[str] = Field(min_length=1)
    targets: list[str] = Field(min_length=1)
    ranks: list[int] = Field(min_length=1)
    modes: list[Mode] = Field(min_length=1)
    splits: list[Split] = Field(min_length=1)
    repeats: int = Field(default=3, ge=1)
    steps: int | None = Field(default=None, ge=1)
    sets: list[str] = []
    parents: dict[str, str] = {}

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("recipes", "targets", "ranks", "modes", "splits"):
            values = getattr(self, name)
            twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
            if twice:
                raise ValueError(f"{name} names {', '.join(twice)} twice")
        if min(self.ranks) < 1:
            raise ValueError(f"ranks {min(self.ranks)}; a point has at least one")
        return self


class Point(NamedTuple):
    """One point before anybody knows whether it can be. One rank is split along no axis."""

    recipe: str
    target: str
    ranks: int
    split: Split | None
    batch_samples: int


class LeftOut(NamedTuple):
    """A point that can't be measured, and why."""

    point: str
    reason: str


@dataclass(frozen=True)
class Study:
    """What will be measured, in order, and what not."""

    stages: list[PlannedStage]
    left_out: list[LeftOut]


def plan_study(config: StudyConfig, root: Path) -> Study:
    """Plans every point and every round.

    Raises:
        UserError: No point is left, or a file is missing or wrong whatever the point.
    """
    planned: list[PlannedStage] = []
    left_out: list[LeftOut] = []
    for point, name in zip(*named_points(config), strict=True):
        try:
            planned.append(_planned(config, point, name, root))
        except MissingParent as missing:
            raise UserError(
                missing.found,
                expected=missing.expected,
                action=f"make it with `slipway run {missing.recipe} --with-parents`, or name one with --parent",
            ) from None
        except UserError as error:
            left_out.append(LeftOut(name, f"{error.found}; expected: {error.expected}"))
    if not planned:
        raise UserError(
            f"no point of the study can be measured: {left_out[0].reason}",
            expected="at least one point that a legal layout fits",
            action="choose other --ranks, --split or --set",
        )
    return Study(in_rounds(planned, config.repeats), left_out)


def named_points(config: StudyConfig) -> tuple[list[Point], list[str]]:
    """Every point once, with its name, by target, recipe and number of ranks.

    Raises:
        UserError: A recipe isn't found, has another stage, or is wrong as it stands; two points have one name.
    """
    points: dict[Point, str] = {}
    alone = {recipe: _recipe_alone(recipe, config) for recipe in config.recipes}
    for target, recipe, mode in itertools.product(config.targets, config.recipes, config.modes):
        batch = int(alone[recipe].config["data"]["global_batch_samples"])
        for ranks, split in _ways(config, alone[recipe]):
            samples = batch if mode == "strong" else _grown(batch, ranks, min(config.ranks))
            point = Point(recipe, target, ranks, split, samples)
            points.setdefault(point, _name(config, point, mode, alone[recipe], ranks == min(config.ranks)))
    twice = [name for name in points.values() if list(points.values()).count(name) > 1]
    if twice:
        raise UserError(
            f"two points called {twice[0]}",
            expected="recipes and targets whose files have different names",
            action="copy one of them to a file with another name",
        )
    order = sorted(points, key=lambda point: (config.targets.index(point.target), point.ranks))
    return order, [points[point] for point in order]


def in_rounds(planned: Sequence[PlannedStage], repeats: int) -> list[PlannedStage]:
    """The points take turns (a b a b): a machine whose speed drifts then favours none of them."""
    return [
        replace(stage, id=f"{stage.id}-{repeat}" if repeats > 1 else stage.id, key=_key(stage, repeat))
        for repeat in range(1, repeats + 1)
        for stage in planned
    ]


def place_of(target: Target) -> dict[str, Any]:
    """What of a target a measurement depends on: a study on another link or other hosts is another one."""
    keys = {"kind", "hosts", "devices_per_host", "device", "threads_per_process", "link"}
    return target.model_dump(mode="json", include=keys)


def _recipe_alone(recipe: str, config: StudyConfig) -> Plan:
    """The recipe on one rank, for its stage and batch."""
    stage = resolve(find_recipe(recipe)).get("stage")
    if stage not in STAGES:
        raise UserError(
            f"recipe {recipe} of stage {stage}",
            expected=f"a recipe of stage {' or '.join(STAGES)}: the stages that train on token shards",
            action="choose, for example, pretrain/scaling",
        )
    return make_plan(recipe, "laptop", [*config.sets, "layout={data: 1}"], config.parents)


def _grown(samples: int, ranks: int, smallest: int) -> int:
    """The global batch that gives each rank what it has on the smallest number of ranks."""
    if samples * ranks % smallest:
        raise UserError(
            f"weak scaling from {smallest} to {ranks} ranks with data.global_batch_samples {samples}",
            expected="whole samples for the same batch per rank",
            action=f"set data.global_batch_samples to a multiple of {smallest}",
        )
    return samples * ranks // smallest


def _ways(config: StudyConfig, plan: Plan) -> Iterator[tuple[int, Split | None]]:
    """Numbers of ranks with the axes to put them along; ZeRO divides over the data axis alone."""
    splits: list[Split] = ["data"] if plan.stage == "zero" else config.splits
    for ranks in sorted(config.ranks):
        yield from ((ranks, split) for split in splits) if ranks > 1 else ((1, None),)


def _name(config: StudyConfig, point: Point, mode: Mode, plan: Plan, smallest: bool) -> str:
    """As short as the study allows: what does not vary is not in it."""
    zero = f"zero{plan.config['zero']['stage']}" if plan.stage == "zero" else ""
    words = [Path(point.recipe).stem] if len(config.recipes) > 1 else []
    words += [zero] if zero else []
    words += [f"{point.split}-{point.ranks}" if point.split else "one"]
    words += [mode] if len(config.modes) > 1 and not smallest else []
    words += [Path(point.target).stem] if len(config.targets) > 1 else []
    return "-".join(words)


def _planned(config: StudyConfig, point: Point, name: str, root: Path) -> PlannedStage:
    sets = [*config.sets, *_assignments(config, point)]
    plan = make_plan(point.recipe, point.target, sets, config.parents, [ONE_THREAD])
    runs = {parent: find_parent(root, parent, word, point.recipe) for parent, word in plan.parents.items()}
    check_model_of(plan, runs)
    _check_cores(plan, point)
    return PlannedStage(name, plan, "", {}, runs, ROLE)


def _check_cores(plan: Plan, point: Point) -> None:
    """Ranks that take turns on a core can be tried, but their speed says nothing; a target may insist."""
    asked, cores = load(Target, find_target(point.target)), max(available_cores(), 2)
    if asked.remote or asked.devices_per_host != "auto" or plan.target.device != "cpu" or plan.processes <= cores:
        return
    raise UserError(
        f"the layout needs {plan.processes} processes, and this machine has {cores} places for ranks (one a core)",
        expected=f"at most {cores} ranks: each with a core of its own",
        action="choose other --ranks, or a target that sets devices_per_host",
    )


def _key(stage: PlannedStage, repeat: int) -> str:
    parent_keys = {parent: run.manifest().key for parent, run in stage.runs.items()}
    return run_key(stage.plan, parent_keys, repeat, place_of(stage.plan.target))


def _assignments(config: StudyConfig, point: Point) -> list[str]:
    """What makes a recipe a measurement: its layout and batch, and no work besides training steps."""
    layout = {axis: point.ranks if axis == point.split else 1 for axis in AXES}
    values: dict[str, Any] = {
        "layout": layout,
        "data.global_batch_samples": point.batch_samples,
        "validation.every_steps": None,
        "checkpoint.every_steps": None,
        "export": False,
    }
    if config.steps:
        values |= {"budget.steps": config.steps, "schedule.warmup_steps": 0}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
