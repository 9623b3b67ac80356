"""Recipe and target become a plan: pure data that says what would run, where and how. Nothing is touched."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.config import apply_set, load, parse, resolve, to_data
from kit.errors import UserError
from kit.layout import Layout
from kit.target import Target
from launch.cloud_price import usd_per_host_hour
from launch.job import HostJob, Place, StopTo, Work, debug_environment, host_job
from launch.machine import accelerator_count
from launch.planner.legality import SIZES, check_layout
from launch.recipe_files import find_recipe, find_target
from launch.stages import LaunchStage, config_model, stage_called
from recipes.engines.abilities import check_abilities, wanted_of


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
        hosts: on how many hosts a stage without a layout runs, one process on each.
    """

    recipe: str
    stage: str
    name: str
    config: dict[str, Any]
    parents: dict[str, str]
    layout: Layout | None
    target: Target
    target_sets: dict[str, Any] = field(default_factory=dict)
    hosts: int = 1

    @property
    def kind(self) -> LaunchStage:
        """The stage's entry in the table."""
        return stage_called(self.stage, self.recipe)

    @property
    def processes(self) -> int:
        """Number of ranks, or of hosts that have one process each."""
        return self.layout.world_size if self.layout else self.hosts


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
    if layout:
        check_abilities(wanted_of(config, layout), settled.device)
    changed: dict[str, Any] = parse_assignments(target_sets)
    hosts = _hosts(config, stage, settled, path) if stage.spread else 1
    return Plan(recipe, str(config["stage"]), str(config["name"]), config, references, layout, settled, changed, hosts)


def work_of_stage(stage: LaunchStage, target: Target, processes: int, debug: bool = False) -> Work:
    """What runs on the hosts of a target: a resume builds the same one again.

    Raises:
        UserError: the ranks can't be spread evenly over hosts.
    """
    return Work(
        module=stage.module,
        processes=processes,
        hosts=(target.hosts_for(processes) if stage.parallel else processes) if target.remote else 1,
        parallel=stage.parallel,
        threads=target.threads_per_process if target.threads_per_process != "auto" else 1,
        environment=debug_environment(debug),
        stop_to=StopTo.RANKS if stage.parallel else StopTo.GROUP,
        stop_grace_seconds=target.stop_grace_seconds,
    )


def shown_command(work: Work, run: str, target: Target) -> HostJob:
    """The first host's command as plans and manifests show it: what stands for a host's own is written in capitals."""
    python = sys.executable if not target.remote else "python"
    address = "127.0.0.1" if work.hosts == 1 else "MASTER"
    return host_job(work, Place(python=python, run=run, address=address, master_address=address))


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


def _hosts(config: Mapping[str, Any], stage: LaunchStage, target: Target, path: Path) -> int:
    """On how many hosts a stage runs that says so under its key `spread`.

    Raises:
        UserError: the target has fewer, or they don't share a run directory.
    """
    asked: Any = config
    for part in stage.spread.split("."):
        asked = asked[part]
    named = target.aws.count if target.aws else max(len(target.hosts), 1)
    shared: object = target.storage
    key = "storage"
    if target.kind == "kubernetes":
        section = target.kubernetes
        shared, key = (section and (section.claim or section.host_path)), "kubernetes.claim"
    if asked == "auto":
        return named if shared else 1
    if asked > named and target.kind != "kubernetes":
        raise UserError(
            f"{path}: {stage.spread} is {asked}, and the target has {named}",
            expected=f"at most {named}",
            action=f"choose another target with --on, or set {stage.spread}=auto",
        )
    if asked > 1 and not shared:
        raise UserError(
            f"{path}: {stage.spread} is {asked}, and the target names no storage that all hosts see",
            expected="one run directory for all of them",
            action=f"set {key} in the target (docs/scale-data.md says what it must offer), or {stage.spread}=1",
        )
    return int(asked)


def capacity(target: Target) -> int | None:
    """The most ranks that a settled target can run at once; None where only a cluster's scheduler knows."""
    devices = int(target.devices_per_host)
    if target.kind == "kubernetes":
        return None
    hosts = target.aws.count if target.aws else max(len(target.hosts), 1)
    return hosts * devices


def _target(name: str, sets: Sequence[str], processes: int) -> Target:
    """The target with every `auto` settled for a number of ranks."""
    path = find_target(name)
    target = load(Target, path, sets).settle(processes, accelerator_count())
    places = capacity(target)
    if places is not None and processes > places:
        what = "GPUs" if target.device == "cuda" else "places for ranks (one a core)"
        if target.remote:
            what = f"places on its hosts ({target.devices_per_host} each)"
        raise UserError(
            f"the layout needs {processes} processes, and {path.name} has {places} {what}",
            expected=f"at most {places} ranks: data x tensor x pipeline x context",
            action=_smaller_layouts(places)
            + (
                f", or allow more ranks than cores with --target-set devices_per_host={processes}"
                if target.device == "cpu" and not target.remote
                else ""
            ),
        )
    target.hosts_for(processes)
    return _priced(target)


def _priced(target: Target) -> Target:
    """A rented target with the price of a host, where somebody knows it: `slipway up` refuses where nobody does."""
    if target.kind != "aws":
        return target
    with contextlib.suppress(UserError):
        return target.model_copy(update={"usd_per_hour": usd_per_host_hour(target)[0]})
    return target


def _smaller_layouts(devices: int) -> str:
    if devices == 1:
        return "set every degree of the layout to 1"
    return f"set, for example, layout.data={devices} or layout.tensor={devices}, and the other degrees to 1"
