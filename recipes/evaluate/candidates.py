"""Which models an evaluation compares, in which order, and what each of them was made from. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.config import read_yaml
from kit.errors import UserError
from kit.files import require_file
from kit.run.directory import RunDirectory
from kit.run.manifest import Manifest, Parent, parent_path
from recipes.dataset import parent_artifacts
from recipes.evaluate.config import DATA, MODEL, EvaluateConfig
from recipes.instructions.read import Conversation, read_instructions, split_held_out


@dataclass(frozen=True)
class Candidate:
    """A model to measure.

    Attributes:
        name: What the recipe calls it; `model` is the one whose figures are the headline.
        directory: Its Hugging Face directory.
        run: The run that made it; None for a directory given by its path.
    """

    name: str
    directory: Path
    run: RunDirectory | None = None

    @property
    def stage(self) -> str | None:
        """The stage that made it."""
        return self.run.manifest().stage if self.run else None

    @property
    def run_id(self) -> str | None:
        """The run that made it."""
        return self.run.id if self.run else None


def find_candidates(config: EvaluateConfig, run: RunDirectory) -> list[Candidate]:
    """Every model of the recipe: `model` first, then the others in the recipe's order.

    Raises:
        UserError: If a parent has no model, or the path holds none.
    """
    found = []
    if config.model_path:
        found.append(Candidate(MODEL, _model_directory(Path(config.model_path), f"model_path of {run.config_path}")))
    names = [name for name in run.manifest().parents if name != DATA]
    for name in sorted(names, key=lambda name: name != MODEL):
        parent = run.manifest().parents[name]
        artifacts = parent_artifacts(run, name)
        if not (artifacts / "model").is_dir():
            stage = RunDirectory.open(parent_path(run, parent)).manifest().stage
            raise UserError(
                f"parent `{name}` is {parent.run_id}, and its stage {stage} exports no model",
                expected="a run with artifacts/model, such as one of stage pretrain, zero, sft or rlhf",
                action=f"name another run with --parent {name}=RUN, or take `{name}` out of the recipe's parents",
            )
        found.append(
            Candidate(name, _model_directory(artifacts / "model", name), RunDirectory(parent_path(run, parent)))
        )
    return found


def _model_directory(path: Path, what: str) -> Path:
    require_file(path / "config.json", f"the config.json of a Hugging Face model ({what})")
    return path.resolve()


def ancestors(run: RunDirectory) -> Iterator[RunDirectory]:
    """The runs that a run's model was made from, nearest first: the parents called `model`, and theirs in turn."""
    seen = {run.id}
    while (parent := _model_parent(run)) is not None and parent.run_id not in seen:
        seen.add(parent.run_id)
        run = RunDirectory(parent_path(run, parent))
        yield run


def _model_parent(run: RunDirectory) -> Parent | None:
    manifest: Manifest | None = run.manifest() if run.manifest_path.is_file() else None
    return manifest.parents.get(MODEL) if manifest else None


def comparisons(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Which models to compare, as indices (before, after): each with the nearest one that it was made from.

    One that was made from none of them is compared with the one before it.
    """
    by_run = {candidate.run_id: index for index, candidate in enumerate(candidates) if candidate.run}
    pairs = []
    for index, candidate in enumerate(candidates):
        made_from = (by_run[run.id] for run in (ancestors(candidate.run) if candidate.run else ()) if run.id in by_run)
        before = next(made_from, index - 1)
        if before >= 0 and before != index:
            pairs.append((before, index))
    return pairs


def choose_prompts(config: EvaluateConfig, candidates: Sequence[Candidate]) -> list[Conversation]:
    """The conversations whose prompts the models answer.

    Raises:
        UserError: If the files are malformed, or a model was trained on one of the prompts that are held out here.
    """
    wanted = config.instructions
    if wanted is None:
        return []
    conversations = read_instructions(wanted.files, wanted.format)
    if wanted.part == "all":
        return conversations[: wanted.prompts]
    _, held_out = split_held_out(conversations, wanted.held_out_fraction, wanted.seed)
    texts = {conversation.prompt_text for conversation in held_out}
    for candidate in candidates:
        if candidate.run is not None:
            _refuse_trained(candidate, texts)
    return held_out[: wanted.prompts]


def _refuse_trained(candidate: Candidate, held_out: set[str]) -> None:
    assert candidate.run is not None
    for run in (candidate.run, *ancestors(candidate.run)):
        trained = [text for text in _trained_prompts(run) if text in held_out]
        if trained:
            raise UserError(
                f"model `{candidate.name}` was trained on prompts that are held out here: {run.id} on {len(trained)}, "
                f"the first {trained[0]!r}",
                expected="instructions.seed and instructions.held_out_fraction as in the run that trained",
                action="set them alike, or say instructions.part=all and read the result as one on training prompts",
            )


def _trained_prompts(run: RunDirectory) -> list[str]:
    """The prompts that a stage with instruction data was trained on; empty where it had none, or they are gone."""
    if not run.config_path.is_file():
        return []
    config = read_yaml(run.config_path)
    data = config.get("data")
    if not isinstance(data, dict) or not {"files", "held_out_fraction"} <= data.keys() or not data["files"]:
        return []
    try:
        conversations = read_instructions(data["files"], data.get("format", "auto"))
    except UserError:
        return []
    train, _ = split_held_out(conversations, data["held_out_fraction"], config["seed"])
    return [conversation.prompt_text for conversation in train]
