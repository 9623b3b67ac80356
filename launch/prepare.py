"""A plan becomes a run directory, with everything in it that ranks and later readers need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.config import digest, dump, load
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, write_manifest
from kit.target import Target
from launch.job import JobDescription
from launch.machine import git_state, package_versions
from launch.origin import describe_parent
from launch.plan import Plan, make_job
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
        command=list(make_job(plan.kind, run.path, plan.target, plan.processes).command),
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
    place = Path(str(manifest.plan.get("working_directory", "")))
    return make_job(
        stage_called(manifest.stage, str(run.manifest_path)),
        run.path,
        load(Target, run.target_path),
        int(manifest.plan.get("processes", 1)),
        place if place.is_dir() else None,
        debug,
    )
