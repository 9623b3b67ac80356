"""A run in its context: the stages that led to it, and for a chain the runs that it consists of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.run.directory import RunDirectory
from kit.run.manifest import ChainStage, Parent
from reports.facts import RunFacts, read_run

MAKES_A_BASE_MODEL = ("pretrain", "zero")
TRAINS = (*MAKES_A_BASE_MODEL, "sft", "reward", "rlhf")


@dataclass(frozen=True)
class StageEntry:
    """A stage of the story; `facts` is None where the stage has not left a readable run directory."""

    id: str
    stage: str
    run_id: str
    role: str = ""
    reused: bool = False
    facts: RunFacts | None = None


@dataclass(frozen=True)
class Story:
    """A run in its context.

    Attributes:
        entries: The stages that led to the run, itself included (a chain: that it consists of), in order.
        lineage: The same with what they rest on from outside a chain, parents before children; no measurements.
    """

    subject: RunFacts
    entries: list[StageEntry] = field(default_factory=list)
    lineage: list[StageEntry] = field(default_factory=list)

    @property
    def chain(self) -> bool:
        """Whether the report is of a chain."""
        return self.subject.stage == "chain"

    @property
    def study(self) -> dict[str, Any]:
        """What a scaling study varies; empty for everything else."""
        found = self.subject.config.get("study")
        return found if self.chain and isinstance(found, dict) else {}

    @property
    def data(self) -> RunFacts | None:
        """The data preparation run."""
        return self.newest("data_prep")

    @property
    def evaluate(self) -> RunFacts | None:
        """The evaluation run."""
        return self.newest("evaluate")

    @property
    def training(self) -> RunFacts | None:
        """The run whose training is told in full: the report's own run where it trained, else the base model's."""
        return self.subject if self.subject.stage in TRAINS else self.newest(*MAKES_A_BASE_MODEL)

    def newest(self, *stages: str) -> RunFacts | None:
        """The last readable run of one of those stages that isn't a mere scaling measurement."""
        found = [e.facts for e in self.entries if e.facts and e.stage in stages and not e.role]
        return found[-1] if found else None

    @property
    def scaling(self) -> list[RunFacts]:
        """The runs that were made to measure scaling, in order."""
        return [e.facts for e in self.entries if e.facts and e.role == "scaling"]


def read_story(path: Path) -> Story:
    """Reads the run at `path` and everything it rests on.

    Raises:
        UserError: `path` is no run directory, or one of its files can't be read.
    """
    subject = read_run(RunDirectory.open(path))
    family: dict[str, StageEntry] = {}
    if subject.stage != "chain":
        _walk(_entry_of(subject), family)
        lineage = list(family.values())
        return Story(subject, [entry for entry in lineage if entry.facts], lineage)
    entries = [_chain_entry(subject, stage) for stage in subject.manifest.stages]
    for entry in entries:
        if not entry.role:
            _walk(entry, family)
    own = {entry.run_id: entry for entry in entries}
    return Story(subject, entries, [own.get(run_id, entry) for run_id, entry in family.items()])


def _walk(entry: StageEntry, family: dict[str, StageEntry]) -> None:
    """Adds the ancestors of a run, then the run, each once: parents come before children."""
    if entry.facts:
        for parent in entry.facts.manifest.parents.values():
            if parent.run_id not in family:
                _walk(_parent_entry(entry.facts, parent), family)
    family.setdefault(entry.run_id, entry)


def _entry_of(facts: RunFacts) -> StageEntry:
    return StageEntry(facts.stage, facts.stage, facts.id, facts=facts)


def _parent_entry(child: RunFacts, parent: Parent) -> StageEntry:
    path = _locate(child.run.path, parent.path, parent.run_id)
    if path:
        return _entry_of(read_run(RunDirectory.open(path)))
    words = parent.run_id.split("-")  # <date>-<time>-<stage>-<name>-<4 hex>
    stage = words[2] if len(words) > 3 else "unknown"
    return StageEntry(stage, stage, parent.run_id)


def _chain_entry(chain: RunFacts, stage: ChainStage) -> StageEntry:
    path = _locate(chain.run.path, stage.path, stage.run_id)
    return StageEntry(
        id=stage.id,
        stage=stage.stage,
        run_id=stage.run_id,
        role=stage.role or "",
        reused=stage.reused,
        facts=read_run(RunDirectory.open(path)) if path else None,
    )


def _locate(asking: Path, recorded: str, run_id: str) -> Path | None:
    """Finds a run by its recorded path, else beside the run that asks (a runs folder may have been moved)."""
    places = [Path(recorded)] if recorded else []
    places += [asking.parent / run_id] if run_id else []
    return next((place for place in places if (place / "manifest.json").is_file()), None)
