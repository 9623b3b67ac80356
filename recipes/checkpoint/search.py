"""Finds the newest checkpoint that is as it was written; the ranks of a disk share the reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.errors import UserError
from recipes.checkpoint.hosts import Hosts
from recipes.checkpoint.manifest import CheckpointManifest, check_files, read_complete
from recipes.distributed.processes import Processes


@dataclass
class Found:
    """What a search came to.

    Attributes:
        step: The newest intact step on any disk; None if there is none.
        here: The newest intact step on this rank's disk.
        complaints: What is wrong with newer ones on this disk.
        damaged: The steps that this disk's complaints are about.
    """

    step: int | None = None
    here: int | None = None
    complaints: list[str] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)


def newest_intact(
    hosts: Hosts, processes: Processes, path_of: Callable[[int], Path], steps: Callable[[], list[int]]
) -> Found:
    """Verifies from the newest downwards, on all disks at the same time. *Collective*: every rank.

    Raises:
        UserError: On every rank, if a checkpoint was written in another schema.
    """
    told = processes.gather_words(json.dumps(steps()))
    candidates: list[int] = json.loads(told[hosts.neighbours[0]] or "[]")
    found = Found()
    while True:
        step = candidates.pop() if candidates and found.here is None else None
        answers = processes.gather_words(json.dumps(None if step is None else _look(hosts, path_of(step))))
        if all(answer == "null" for answer in answers):
            break
        refusals = [one["refused"] for one in map(json.loads, filter(None, answers)) if one and one["refused"]]
        if refusals:
            raise UserError(refusals[0]["found"], expected=refusals[0]["expected"], action=refusals[0]["action"])
        if step is None:
            continue
        wrong = [json.loads(answers[rank] or "null") for rank in hosts.neighbours]
        words = next((one["wrong"] for one in wrong if one and one["wrong"]), None)
        if words is None:
            found.here = step
        else:
            found.damaged.add(step)
            found.complaints.append(f"checkpoint {path_of(step).name} is left out: {words}")
    intact = [int(word) for word in processes.gather_words(_number(found.here)) if word is not None]
    found.step = max(intact, default=None)
    return found


def _look(hosts: Hosts, folder: Path) -> dict[str, object]:
    """This rank's share of a checkpoint: what is wrong with it, or why it is refused."""
    try:
        said = read_complete(folder)
    except UserError as error:
        return {"wrong": None, "refused": error.parts()}
    if not isinstance(said, CheckpointManifest):
        return {"wrong": said, "refused": None}
    files = {file.path: file for file in said.files}
    # The largest first, so that every rank gets some of those.
    names = hosts.share(sorted(files, key=lambda name: (-files[name].bytes, name)))
    return {"wrong": check_files(folder, [files[name] for name in sorted(names)]), "refused": None}


def _number(step: int | None) -> str | None:
    return None if step is None else str(step)
