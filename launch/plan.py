"""Recipe and target become a plan: pure data that says what would run, where and how. Nothing is touched."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.config import apply_set, load, parse, resolve, to_data
from kit.errors import UserError
from kit.layout import Layout
from kit.target import Target
from launch.job import JobDescription, StopTo
from launch.machine import accelerator_count
from launch.planner.legality import SIZES, check_layout
from launch.recipe_files import find_recipe, find_target
from launch.stages import LaunchStage, config_model, stage_called


@dataclass(frozen=True)
class Plan:
    """What one run would be.

    Attributes:
        recipe: the recipe as its owner called it.
        stage: the stage's name.
        name: the recipe's `name`.
        config: the resolved and validated configuration without its parents.
        parents: parent's name -> run reference (an id, `last:data_prep`, ...).
        layout: how many ranks along which axis; None for a stage that is one process.
        target: where it runs, with every `auto` settled.
        target_sets: what was changed on the target by hand; it belongs to the key of a run.
    """

    recipe: str
    stage: str
    name: str
    config: dict[str, Any]
    parents: dict[str, str]
    layout: Layout | None
    target: Target
    target_sets: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> LaunchStage:
        """The stage's entry in the table."""
        return stage_called(self.stage, self.recipe)

    @property
    def processes(self) -> int:
        """Number of ranks."""
        return self.layout.world_size if self.layout else 1


def make_plan(
    recipe: str,
    target: str = "laptop",
    sets: Sequence[str] = (),
    parents: Mapping[str, str] | None = None,
    target_sets: Sequence[str] = (),
) -> Plan:
    """Make the plan of one run.

    Args:
        recipe: path or short name of the recipe.
        target: path or short name of the target.
        sets: `a.b=c` assignments on the recipe.
        parents: run references that replace the recipe's.
        target_sets: `a=b` assignments on the target.

    Raises:
        UserError: a file is missing, a key is unknown, a value is wrong, or the layout does not fit.
    """
    path = find_recipe(recipe)
    data = resolve(path, sets)
    stage = stage_called(data.get("stage"), str(path))
    config = to_data(parse(config_model(stage), data, str(path)))
    references = _parents(config, parents or {}, path)
    layout = _layout(config, stage, path)
    settled = _target(target, target_sets, layout.world_size if layout else 1)
    changed: dict[str, Any] = parse_assignments(target_sets)
    return Plan(recipe, str(config["stage"]), str(config["name"]), config, references, layout, settled, changed)


def make_job(
    stage: LaunchStage,
    run: Path,
    target: Target,
    processes: int,
    working_directory: Path | None = None,
    debug: bool = False,
) -> JobDescription:
    """The job that does a run, from what its run directory holds: a resume builds the same one again."""
    command: list[str] = [sys.executable, "-u"]
    if stage.parallel:
        # The loopback address: without it torchrun looks up the machine's name, which many laptops can't resolve.
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--nnodes", "1"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "127.0.0.1"]
        command += ["--max-restarts", str(target.restarts)]
    command += ["-m", stage.module, str(run)]
    environment = {"OMP_NUM_THREADS": str(target.threads_per_process), "PYTHONUNBUFFERED": "1"}
    if debug:
        environment["SLIPWAY_DEBUG"] = "1"
    stop_to = StopTo.RANKS if stage.parallel else StopTo.GROUP
    return JobDescription(
        run, tuple(command), environment, working_directory, processes, stop_to, target.stop_grace_seconds
    )


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`a.b=c` assignments as nested data."""
    data: dict[str, Any] = {}
    for assignment in assignments:
        data = apply_set(data, assignment)
    return data


def _parents(config: dict[str, Any], changes: Mapping[str, str], path: Path) -> dict[str, str]:
    """The parents that a recipe names, with the changes of the command line."""
    named: dict[str, str] = dict(config.pop("parents", None) or {})
    for name in changes:
        if name not in named:
            raise UserError(
                f"--parent {name}=...: {path.name} has no parent called {name!r}",
                expected=f"one of: {', '.join(named)}" if named else "no parents, this stage starts from files",
                action="mend the name, or leave --parent out",
            )
    return {**named, **changes}


def _layout(config: Mapping[str, Any], stage: LaunchStage, path: Path) -> Layout | None:
    """The layout of a recipe, checked against its model."""
    if not stage.parallel:
        return None
    layout = parse(Layout, config.get("layout") or {}, str(path))
    model, data = config.get("model"), config.get("data")
    if isinstance(model, Mapping) and isinstance(data, Mapping) and "sequence_length" in data:
        sizes = {key: int(model[key]) for key in SIZES}
        check_layout(layout, config, sizes, model.get("vocab"))
    return layout


def _target(name: str, sets: Sequence[str], processes: int) -> Target:
    """The target with every `auto` settled for a number of ranks."""
    path = find_target(name)
    target = load(Target, path, sets).settle(processes, accelerator_count())
    devices = target.devices_per_host
    assert isinstance(devices, int), "settle leaves no auto"
    if processes > devices:
        what = "GPUs" if target.device == "cuda" else "places for ranks (one a core)"
        raise UserError(
            f"the layout needs {processes} processes, and {path.name} has {devices} {what}",
            expected=f"at most {devices} ranks: data x tensor x pipeline x context",
            action=_smaller_layouts(devices)
            + (
                f", or allow more ranks than cores with --target-set devices_per_host={processes}"
                if target.device == "cpu"
                else ""
            ),
        )
    return target


def _smaller_layouts(devices: int) -> str:
    if devices == 1:
        return "set every degree of the layout to 1"
    return f"set, for example, layout.data={devices} or layout.tensor={devices}, and the other degrees to 1"
