"""The run directory: `<time>-<stage>-<name>-<4 hex>/`, made once and never overwritten."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.config import read_yaml
from kit.errors import UserError
from kit.files import disk_full_as_failure
from kit.run import manifest as manifests

FOLDERS = ("logs", "checkpoints", "artifacts", "report", "processes")
_ID = re.compile(r"\d{8}-\d{6}-[a-z_]+-.+-[0-9a-f]{4}")


class RunDirectory:
    """A run's folder and the names of what lies in it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(cls, root: Path, stage: str, name: str) -> RunDirectory:
        """Makes a new run directory under a root.

        Raises:
            UserError: If the root cannot be a folder, or may not be written to.
            RunFailure: If the disk is full.
        """
        root = Path(root)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "run"
        with disk_full_as_failure(root):
            _make_folder_of_runs(root)
            while True:
                path = root / f"{stamp}-{stage}-{safe}-{secrets.token_hex(2)}"
                try:
                    path.mkdir(exist_ok=False)
                    break
                except FileExistsError:
                    continue
            for folder in FOLDERS:
                (path / folder).mkdir()
        return cls(path.resolve())

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens an existing run directory.

        Raises:
            UserError: If there is none at the path.
        """
        path = Path(path)
        # A run that is being made has its name before its manifest.
        named = path.is_dir() and _ID.fullmatch(path.resolve().name)
        if not named and not (path / "manifest.json").is_file():
            raise UserError(
                f"no run directory at {path}",
                expected="a folder with a manifest.json",
                action="see the runs with `slipway status`",
            )
        return cls(path.resolve())

    @property
    def id(self) -> str:
        """The run id: the folder's name."""
        return self.path.name

    @property
    def manifest_path(self) -> Path:
        """Who, what, from what: written once."""
        return self.path / "manifest.json"

    @property
    def config_path(self) -> Path:
        """The resolved configuration: the only recipe file that ranks read."""
        return self.path / "config.yaml"

    @property
    def target_path(self) -> Path:
        """The settled target."""
        return self.path / "target.yaml"

    @property
    def events_path(self) -> Path:
        """What happened, append-only."""
        return self.path / "events.jsonl"

    @property
    def metrics_path(self) -> Path:
        """One line a step, append-only."""
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        """launcher.log and one file a rank."""
        return self.path / "logs"

    @property
    def processes(self) -> Path:
        """Process ids of the launcher and of every rank on this machine."""
        return self.path / "processes"

    @property
    def checkpoints(self) -> Path:
        """step-00001000/ folders, each complete or absent."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """What the next stage reads."""
        return self.path / "artifacts"

    @property
    def report(self) -> Path:
        """report.html, report.md, summary.json, tables."""
        return self.path / "report"

    def manifest(self) -> manifests.Manifest:
        """Reads the manifest."""
        return manifests.read_manifest(self)

    def config(self) -> dict[str, Any]:
        """Reads the resolved configuration as plain data."""
        return read_yaml(self.config_path)


def _make_folder_of_runs(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(root, os.W_OK | os.X_OK) else "you may not write there"
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        reason = f"{error.strerror}: {error.filename}"
    if reason:
        raise UserError(
            f"no run can be made in {root}: {reason}",
            expected="a folder for runs that you may write to",
            action="choose another one with --runs DIR",
        )


def list_runs(root: Path) -> list[RunDirectory]:
    """Returns the run directories under a root, oldest first.

    One whose manifest cannot be read (damaged, or of a later version) is left out, so that it does not stand in the way
    of all others; opening it by its path says what is wrong with it.
    """
    found = []
    for path in Path(root).iterdir() if Path(root).is_dir() else ():
        run = RunDirectory(path.resolve())
        with contextlib.suppress(UserError):
            found.append((run.manifest().created, run.id, run))
    return [run for *_, run in sorted(found, key=lambda entry: entry[:2])]


def newest_finished(runs: list[RunDirectory], stage: str) -> RunDirectory | None:
    """Returns the newest finished run of a stage, or None.

    Runs with a role are left out: a scaling point trains for a few steps, and nobody means it by the last model.
    """
    from kit.run.events import RunState, state_of

    for run in reversed(runs):
        manifest = run.manifest()
        if manifest.stage == stage and manifest.role is None and state_of(run) == RunState.FINISHED:
            return run
    return None


def find_run(root: Path, reference: str) -> RunDirectory:
    """Finds a run by path, id, unique prefix, `last`, or `last:<stage>`.

    `last` is the newest chain, or else the newest run; `last:<stage>` the newest finished run of that stage.

    Raises:
        UserError: If nothing, or more than one run, fits.
    """
    if Path(reference).is_dir():
        return RunDirectory.open(Path(reference))
    runs = list_runs(root)
    kind, _, stage = reference.partition(":")
    if kind == "last" and stage:
        newest = newest_finished(runs, stage)
        fitting = [newest] if newest else []
    elif kind == "last":
        fitting = ([r for r in runs if r.manifest().stage == "chain"] or runs)[-1:]
    else:
        fitting = [r for r in runs if r.id == reference] or [r for r in runs if r.id.startswith(reference)]
    if len(fitting) == 1:
        return fitting[0]
    count = f"{len(fitting)} runs fit" if fitting else "no run fits"
    raise UserError(
        f"{count} {reference!r} under {root}",
        expected="a path, a run id, the beginning of one, `last`, or `last:<stage>` (the newest finished run of it)",
        action="see the runs with `slipway status`" if runs else "start one with `slipway run` or `make demo`",
    )
