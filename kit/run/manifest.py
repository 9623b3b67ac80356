"""What a run is and where it came from: written once, at its start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.config import Config, parse
from kit.files import atomic_write, read_record

if TYPE_CHECKING:
    from kit.run.directory import RunDirectory

SCHEMA_VERSION = 1


class Parent(Config):
    """A finished run whose artifacts this one reads.

    Attributes:
        run_id: Its run id.
        path: Where it lay when this run was made.
        digest: Digest over its key and its artifacts, so that one can tell later that they are still the same.
    """

    run_id: str
    path: str
    digest: str


class ChainStage(Config):
    """One stage of a chain: which run did it, and whether that run was there already."""

    id: str
    stage: str
    run_id: str
    path: str
    reused: bool
    role: str | None = None


class Manifest(Config):
    """The origin of a run.

    Attributes:
        key: Equal for two runs exactly if the second would repeat the first.
        role: What the run is for, other than its product: `scaling`. Such a run is never `last:<stage>`.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    stage: str
    name: str
    created: str
    parents: dict[str, Parent] = {}
    git_commit: str | None = None
    git_diff_digest: str | None = None
    config_digest: str
    layout: dict[str, Any] | None = None
    versions: dict[str, str] = {}
    command: list[str] = []
    plan: dict[str, Any] = {}
    key: str
    role: str | None = None
    stages: list[ChainStage] = []


def parent_path(run: RunDirectory, parent: Parent) -> Path:
    """Returns where a parent lies as seen from a run: beside it (on every machine), or else where it was recorded."""
    beside = run.path.parent / parent.run_id
    return beside if beside.is_dir() else Path(parent.path)


def write_manifest(run: RunDirectory, manifest: Manifest) -> None:
    """Writes a run's manifest. A chain writes its own again as its stages become known; any other run writes once."""
    assert manifest.stage == "chain" or not run.manifest_path.exists(), f"{run.manifest_path} is written once"
    atomic_write(run.manifest_path, json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_manifest(run: RunDirectory) -> Manifest:
    """Reads a run's manifest.

    Raises:
        UserError: If it is missing, damaged, or of a later schema.
    """
    path = run.manifest_path
    data = read_record(path, "the JSON manifest of a run directory", newest_schema=SCHEMA_VERSION)
    return parse(Manifest, data, str(path))
