"""The proof that held-out prompts are held out: no run that led here has trained on one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kit.errors import SlipwayError, UserError
from kit.run.directory import RunDirectory
from kit.run.manifest import parent_path
from recipes.instructions.read import Conversation, read_instructions, split_held_out


def check_held_out(run: RunDirectory, held_out: Sequence[Conversation]) -> list[str]:
    """Looks through all ancestors that read instruction data.

    Their splits are made again from their own configurations, so it doesn't matter whether their files have other
    names, as long as they are still there.

    Returns:
        The ids of the runs that were checked.

    Raises:
        UserError: If one of them has trained on a held-out prompt.
    """
    prompts = {one.prompt_text for one in held_out}
    checked = []
    for ancestor in _ancestors(run):
        trained = _trained_prompts(ancestor)
        if trained is None:
            continue
        checked.append(ancestor.id)
        if common := prompts & trained:
            raise UserError(
                f"{len(common)} of {len(prompts)} held-out prompts were trained on by {ancestor.id}",
                expected="prompts that no earlier stage has seen",
                action="give every stage the same data.files, data.held_out_fraction and seed",
            )
    return checked


def _ancestors(run: RunDirectory) -> Iterator[RunDirectory]:
    seen: set[Path] = set()
    waiting = [run]
    while waiting:
        child = waiting.pop()
        for parent in child.manifest().parents.values():
            path = parent_path(child, parent)
            if path not in seen and (path / "manifest.json").is_file():
                seen.add(path)
                waiting.append(RunDirectory(path))
                yield waiting[-1]


def _trained_prompts(run: RunDirectory) -> set[str] | None:
    """The training prompts of a run; None if it has no instruction data, or the files are gone."""
    if not run.config_path.is_file():
        return None
    config = run.config()
    data = config.get("data") or {}
    if "held_out_fraction" not in data or not data.get("files"):
        return None
    try:
        conversations = read_instructions(data["files"], data.get("format", "auto"))
    except SlipwayError as error:
        print(f"warning: what {run.id} was trained on can't be read any more: {error.found}", flush=True)
        return None
    train, _ = split_held_out(conversations, data["held_out_fraction"], config.get("seed", 0))
    return {one.prompt_text for one in train}
