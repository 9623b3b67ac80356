"""Running a chain: what is done is used again, what was interrupted goes on, the rest is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.config import digest, dump, parse, to_data
from kit.files import atomic_write
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import RunState, append_event, now
from kit.run.manifest import ChainStage, Manifest, write_manifest
from kit.run.process import record_process
from launch.chain_plan import PlannedStage, plan_chain
from launch.console import Console
from launch.headline import headline
from launch.host.processes import LAUNCHER, processes_dir
from launch.machine import git_state, package_versions
from launch.outcome import last_failure, standing
from launch.prepare import prepare
from launch.recipe_files import ROOT, find_chain
from launch.reporting import build_report
from launch.study import StudyConfig, plan_study
from launch.supervise import INTERRUPTED, result_of
from launch.supervise import execute as execute_run

ChainResult = tuple[int, dict[str, Any]]


def start_chain(
    name: str, root: Path, target: str, sets: Sequence[str], fresh: bool, console: Console, debug: bool = False
) -> ChainResult:
    """Run a chain in a new chain directory.

    Returns:
        The exit code and what --json prints.

    Raises:
        UserError: the chain, a recipe or a parent is wrong; nothing has been made then.
    """
    chain_name, stages = plan_chain(find_chain(name), root, target, sets)
    request = {
        "stage": "chain",
        "name": chain_name,
        "chain": name,
        "target": target,
        "sets": list(sets),
        "fresh": fresh,
    }
    command = ["slipway", "chain", name, *(word for text in sets for word in ("--set", text))]
    run = _new_chain(root, request, stages, command)
    console.say(f"Chain {run.id}: {', '.join(stage.id for stage in stages)}")
    return Chain(run, stages, fresh, console, debug).go()


def start_study(
    config: StudyConfig, root: Path, fresh: bool, command: Sequence[str], console: Console, debug: bool = False
) -> ChainResult:
    """Measure the points of a scaling study, in a chain directory of its own.

    Returns:
        The exit code and what --json prints.

    Raises:
        UserError: no point can be measured; nothing has been made then.
    """
    study = plan_study(config, root)
    request = {"stage": "chain", "name": "scaling", "study": to_data(config), "fresh": fresh}
    left_out = [point._asdict() for point in study.left_out]
    run = _new_chain(root, request, study.stages, command, left_out=left_out)
    console.say(f"Study {run.id}: {len(study.stages)} runs")
    for point in study.left_out:
        console.say(f"Left out {point.point}: {point.reason}")
    return Chain(run, study.stages, fresh, console, debug).go()


def _new_chain(
    root: Path, request: dict[str, Any], stages: Sequence[PlannedStage], command: Sequence[str], **facts: Any
) -> RunDirectory:
    """A chain directory, before anything has run."""
    run = RunDirectory.create(root, "chain", request["name"])
    atomic_write(run.config_path, dump(request))
    commit, difference = git_state(ROOT)
    manifest = Manifest(
        run_id=run.id,
        stage="chain",
        name=request["name"],
        created=now(),
        git_commit=commit,
        git_diff_digest=difference,
        config_digest=digest(request),
        versions=package_versions(),
        command=list(command),
        plan={"working_directory": str(Path.cwd()), **facts},
        key=digest({"stages": [stage.key for stage in stages]}),
    )
    write_manifest(run, manifest)
    return run


def resume_chain(run: RunDirectory, console: Console, debug: bool = False) -> ChainResult:
    """Go on with a chain in its own directory: the stages that finished are used again."""
    manifest, request = run.manifest(), run.config()
    place = Path(str(manifest.plan.get("working_directory", "")))
    if place.is_dir():
        os.chdir(place)  # relative paths of the request start where it was made
    root = run.path.parent
    if "study" in request:
        stages = plan_study(parse(StudyConfig, request["study"], str(run.config_path)), root).stages
    else:
        _, stages = plan_chain(find_chain(str(request["chain"])), root, str(request["target"]), request["sets"])
    console.say(f"Resuming chain {run.id}")
    return Chain(run, stages, bool(request["fresh"]), console, debug).go()


class Chain:
    """One pass over the stages of a chain."""

    def __init__(
        self, run: RunDirectory, stages: Sequence[PlannedStage], fresh: bool, console: Console, debug: bool
    ) -> None:
        self._run = run
        self._stages = stages
        self._own = {stage.path: stage.reused for stage in run.manifest().stages}  # of an earlier pass
        self._fresh = fresh
        self._console = console
        self._debug = debug
        self._done: dict[str, RunDirectory] = {}
        self._entries: list[ChainStage] = []

    def go(self) -> ChainResult:
        """Do every stage that is not done, then the report."""
        record_process(processes_dir(self._run.path) / LAUNCHER, os.getpid())
        append_event(self._run, "submitted")
        append_event(self._run, "started")
        try:
            for number, stage in enumerate(self._stages, start=1):
                self._console.say(f"\n[{number}/{len(self._stages)}] {stage.id}")
                code = self._do(stage)
                if code:
                    return self._break_off(stage, code)
        except BaseException as error:
            kind = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            append_event(self._run, kind, **_parts(error, self._run.id))
            raise
        append_event(self._run, "finished")
        return self._report()

    def _do(self, stage: PlannedStage) -> int:
        found = self._find(stage)
        reused = found is not None and standing(found).state == RunState.FINISHED
        if found is None:
            parents = {name: self._done[other] for name, other in stage.stages.items()} | stage.runs
            found = prepare(stage.plan, self._run.path.parent, parents, stage.key, stage.role)
            resumed = False
        else:
            resumed = not reused
        self._done[stage.id] = found
        self._note(stage, found, self._own.get(str(found.path), reused))
        if reused:
            self._console.say(f"{stage.id}: reused {found.id}, nothing changed{_code_note(found)}")
            return 0
        self._console.say(f"{stage.id}: {'going on with' if resumed else 'run'} {found.id}")
        return execute_run(found, self._console, resumed=resumed, debug=self._debug)

    def _find(self, stage: PlannedStage) -> RunDirectory | None:
        """The newest run with the stage's key: a finished one, or else one that can go on."""
        taken = {run.path for run in self._done.values()}
        same = [
            run
            for run in reversed(list_runs(self._run.path.parent))
            if run.manifest().key == stage.key
            and run.path not in taken
            and (not self._fresh or str(run.path) in self._own)
        ]
        finished = [run for run in same if standing(run).state == RunState.FINISHED]
        # A measurement that was interrupted is not one: scaling points start again.
        resumable = [run for run in same if not stage.role and can_go_on(run, stage.plan.kind.checkpoints)]
        return next(iter(finished + resumable), None)

    def _note(self, stage: PlannedStage, run: RunDirectory, reused: bool) -> None:
        """Add a stage to the chain's manifest, which is complete at every moment for what has begun."""
        entry = ChainStage(
            id=stage.id, stage=stage.plan.stage, run_id=run.id, path=str(run.path), reused=reused, role=stage.role
        )
        self._entries.append(entry)
        write_manifest(self._run, self._run.manifest().model_copy(update={"stages": list(self._entries)}))

    def _break_off(self, stage: PlannedStage, code: int) -> ChainResult:
        """A stage did not finish: the chain ends here, says so, and passes its exit code on."""
        run = self._done[stage.id]
        resume = f"slipway resume {self._run.id}"
        result = {**result_of(run, code), "run_id": self._run.id, "path": str(self._run.path), "stage": stage.id}
        if standing(run).state == RunState.STOPPED or code == INTERRUPTED:
            append_event(self._run, "stopped", stage=stage.id)
            self._console.say(f"\nChain stopped in stage {stage.id}. Go on with: {resume}")
            return code, result
        failure = last_failure(run) or {}
        append_event(
            self._run,
            "failed",
            stage=stage.id,
            found=f"stage {stage.id} failed: {failure.get('found', run.id)}",
            expected=failure.get("expected", "a stage that finishes"),
            action=f"{failure.get('action', 'mend the cause')}; then go on with `{resume}`",
        )
        self._console.say(f"\nChain failed in stage {stage.id} ({run.id}). Mend the cause, then go on with: {resume}")
        return code, result

    def _report(self) -> ChainResult:
        summary = build_report(self._run)
        self._console.say("\n" + headline(summary))
        self._console.say(f"\nReport: {self._run.report / 'report.html'}")
        self._console.say(f"Run directory: {self._run.path}")
        return 0, {**summary, "path": str(self._run.path), "report": str(self._run.report / "report.html")}


def can_go_on(run: RunDirectory, needs_checkpoint: bool) -> bool:
    """Whether a run ended early and left something to go on from, other than the user's own mistake."""
    if not standing(run).resumable or (last_failure(run) or {}).get("exit_code") == 2:
        return False
    return not needs_checkpoint or any(run.checkpoints.glob("step-*/COMPLETE"))


def _code_note(run: RunDirectory) -> str:
    """A remark where the code has changed since: keys cover configuration and inputs, not code."""
    manifest = run.manifest()
    same = (manifest.git_commit, manifest.git_diff_digest) == git_state(ROOT)
    return "" if same else " (the code has changed since; --fresh does it again)"


def _parts(error: BaseException, run_id: str) -> dict[str, Any]:
    if isinstance(error, KeyboardInterrupt):
        return {}
    return {
        "found": str(getattr(error, "found", None) or f"{type(error).__name__}: {error}"),
        "expected": str(getattr(error, "expected", "a chain that finishes")),
        "action": str(getattr(error, "action", f"mend the cause, then `slipway resume {run_id}`")),
    }
