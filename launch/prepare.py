"""A plan becomes a run directory, with everything in it that ranks and later readers need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.config import digest, dump, load, parse
from kit.files import atomic_write
from kit.layout import Layout
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, parent_path, write_manifest
from kit.target import Target
from launch.executors.aws_hosts import cluster_hosts
from launch.job import JobDescription
from launch.machine import git_state, package_versions
from launch.origin import describe_parent, input_words
from launch.plan import Plan, shown_command, work_of_stage
from launch.planner.models import check_model_of
from launch.planner.prediction import predict
from launch.recipe_files import ROOT
from launch.stages import stage_called


def prepare(
    plan: Plan, root: Path, parents: Mapping[str, RunDirectory], key: str, role: str | None = None
) -> RunDirectory:
    """Make the run directory of a plan.

    Args:
        plan: what will run.
        root: the folder of runs.
        parents: parent's name -> finished run.
        key: the run's reuse key.
        role: what the run is for, other than its product: `scaling`.

    Raises:
        UserError: the model that the parents bring can't be cut this way; nothing has been made then.
        RunFailure: the disk is full.
    """
    check_model_of(plan, parents)
    predicted = predict(plan, parents, root)
    run = RunDirectory.create(root, plan.stage, plan.name)
    config = {**plan.config, "parents": {name: parent.id for name, parent in parents.items()}}
    atomic_write(run.config_path, dump(config if parents else plan.config))
    atomic_write(run.target_path, dump(plan.target))
    commit, difference = git_state(ROOT)
    work = work_of_stage(plan.kind, plan.target, plan.processes)
    facts: dict[str, Any] = {"recipe": plan.recipe, "processes": plan.processes, "working_directory": str(Path.cwd())}
    facts["predicted"] = predicted
    manifest = Manifest(
        run_id=run.id,
        stage=plan.stage,
        name=plan.name,
        created=now(),
        parents={name: describe_parent(parent) for name, parent in parents.items()},
        git_commit=commit,
        git_diff_digest=difference,
        config_digest=digest(plan.config),
        layout=plan.layout.model_dump(mode="json") if plan.layout else None,
        versions=package_versions(),
        command=list(shown_command(work, str(run.path), plan.target).command),
        plan=facts,
        role=role,
        key=key,
    )
    write_manifest(run, manifest)
    return run


def job_of_run(run: RunDirectory, debug: bool = False) -> JobDescription:
    """The job of a run, from its directory alone: a first start and a resume are the same job.

    Raises:
        UserError: the directory is damaged, or of a stage that is not known here.
    """
    manifest = run.manifest()
    stage = stage_called(manifest.stage, str(run.manifest_path))
    target = load(Target, run.target_path)
    if target.kind == "aws":
        target = cluster_hosts(target, run.path.parent)
    place = Path(str(manifest.plan.get("working_directory", "")))
    return JobDescription(
        run=run.path,
        target=target,
        work=work_of_stage(stage, target, processes_of(run), debug),
        working_directory=place if place.is_dir() else None,
        parents=tuple(parent_path(run, parent) for parent in manifest.parents.values()),
        inputs=tuple(word for key in stage.inputs for word in input_words(run.config(), key)),
    )


def processes_of(run: RunDirectory) -> int:
    """How many ranks, or hosts with one process each, a run has: its layout says, which a resume may have changed."""
    layout = run.config().get("layout")
    if layout is None:
        return int(run.manifest().plan.get("processes", 1))
    return parse(Layout, layout, str(run.config_path)).world_size
