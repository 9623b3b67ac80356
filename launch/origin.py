"""Where a run comes from: its parents, the key that says whether it was done before, and the digests that prove it."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.config import digest
from kit.errors import UserError
from kit.files import sha256_file
from kit.run.directory import RunDirectory, find_run, list_runs, newest_finished
from kit.run.events import RunState, state_of
from kit.run.manifest import Parent
from launch.plan import Plan
from launch.recipe_files import ROOT, recipe_that_makes

HASHED_WHOLE_BYTES = 256 * 2**20  # larger inputs are told apart by size and time: hashing a crawl would take hours

READ_BY_CHILDREN = ("model", "tokenizer", "adapter", "reward_model")
"""Folders of artifacts whose content belongs to a parent's digest; shards are in their card."""


class MissingParent(UserError):
    """A parent run is not there; `recipe` would make it."""

    def __init__(self, name: str, stage: str, reference: str, root: Path, recipe: str | None) -> None:
        self.name = name
        self.recipe = recipe
        make = f"`slipway run {recipe}` makes one; --with-parents does it for you" if recipe else "run that stage first"
        super().__init__(
            f"no finished {stage} run under {root} for parent `{name}` ({reference})",
            expected=f"a finished run of stage {stage}",
            action=f"{make}; or name a run with --parent {name}=RUN",
        )


def find_parent(root: Path, name: str, reference: str, child: str) -> RunDirectory:
    """The run that a parent's reference means.

    Args:
        root: the folder of runs.
        name: what the child calls this parent.
        reference: a run id, a path, or `last:<stage>`.
        child: the recipe that asks; a missing parent is best made by the recipe of the same name.

    Raises:
        MissingParent: `last:<stage>` finds nothing.
        UserError: the reference fits no run, or one that has not finished.
    """
    kind, _, stage = reference.partition(":")
    if kind == "last" and stage:
        newest = newest_finished(list_runs(root), stage)
        if newest is None:
            raise MissingParent(name, stage, reference, root, recipe_that_makes(stage, Path(child).stem))
        return newest
    run = find_run(root, reference)
    if not _is_finished(run):
        raise UserError(
            f"parent `{name}` is {run.id}, which is {state_of(run)}",
            expected="a finished run",
            action=f"finish it with `slipway resume {run.id}`, or name another with --parent {name}=RUN",
        )
    return run


def describe_parent(run: RunDirectory) -> Parent:
    """A parent as a manifest records it."""
    return Parent(run_id=run.id, path=str(run.path), digest=artifacts_digest(run))


def artifacts_digest(run: RunDirectory) -> str:
    """A digest over a run's key and what its children read: models, and cards (which hold the digests of shards)."""
    files = [path for pattern in ("*.json", "*.jsonl") for path in run.artifacts.glob(pattern) if path.is_file()]
    files += [path for folder in READ_BY_CHILDREN for path in (run.artifacts / folder).rglob("*") if path.is_file()]
    names = {str(path.relative_to(run.artifacts)): sha256_file(path) for path in sorted(files)}
    return digest({"key": run.manifest().key, "artifacts": names})


def run_key(plan: Plan, parent_keys: Mapping[str, str], repeat: int = 1, place: Mapping[str, Any] | None = None) -> str:
    """The digest that two runs share exactly if the second would repeat the first.

    Args:
        plan: what would run.
        parent_keys: parent's name -> that run's own key, so that a change travels down to every descendant.
        repeat: which repetition of the same measurement this is, from 1.
        place: what of the target belongs to a measurement; a product is the same wherever it was made.
    """
    inputs = {name: mark for key in plan.kind.inputs for name, mark in input_fingerprints(plan.config, key).items()}
    content: dict[str, Any] = {
        "stage": plan.stage,
        "config": plan.config,
        "parents": dict(parent_keys),
        "inputs": inputs,
    }
    if plan.target_sets:
        content["target"] = plan.target_sets
    if repeat > 1:
        content["repeat"] = repeat
    if place:
        content["place"] = dict(place)
    return digest(content)


def input_fingerprints(config: Mapping[str, Any], dotted: str) -> dict[str, str]:
    """Input file -> fingerprint, for the files, folders, patterns and addresses in a configuration's list of inputs.

    What is missing gets no fingerprint here: the stage that reads it says so in better words.
    """
    words = input_words(config, dotted)
    return {name: mark for word in words for name, mark in _fingerprints(word).items()}


def input_words(config: Mapping[str, Any], dotted: str) -> list[str]:
    """The files, folders, patterns and addresses that stand under a dotted key of a configuration."""
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = list(value.values())
    return [value] if isinstance(value, str) else [str(word) for word in value or []]


def _fingerprints(word: str) -> dict[str, str]:
    if "://" in word:
        return {word: "address"}
    # data_prep finds its embedded sample from any working folder; so must its fingerprint.
    base = "" if Path(word).is_absolute() or glob.glob(word) else f"{ROOT}/"
    files: list[Path] = []
    for path in map(Path, sorted(glob.glob(base + word))):
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(path).removeprefix(base): _fingerprint(path) for path in files} or {word: "missing"}


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= HASHED_WHOLE_BYTES:
        return "sha256:" + sha256_file(path)
    return f"size {stat.st_size} modified {stat.st_mtime_ns}"


def _is_finished(run: RunDirectory) -> bool:
    return state_of(run) == RunState.FINISHED
