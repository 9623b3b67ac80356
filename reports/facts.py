"""Reads what a run left behind: the run itself, its ancestors, and for a chain the runs of its stages.

Nothing is computed here and nothing is invented: what a run did not record is None or empty.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events, state_of
from kit.run.manifest import ChainStage, Manifest
from kit.tokens.card import DatasetCard, read_card
from reports.scaling import Measurement

BEGINNINGS = frozenset({"submitted", "preparing", "started", "restarting"})
ENDS = frozenset({"stopped", "finished", "failed"})


@dataclass(frozen=True)
class RunFacts:
    """Everything that one run directory says about its run."""

    run: RunDirectory
    manifest: Manifest
    config: dict[str, Any]
    state: str
    events: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    card: DatasetCard | None

    @property
    def id(self) -> str:
        """The run id."""
        return self.manifest.run_id

    @property
    def stage(self) -> str:
        """The stage name: data_prep, pretrain, evaluate, chain."""
        return self.manifest.stage

    @property
    def seconds(self) -> float | None:
        """Wall time spent running: the sum over stretches from a start to its end, so that pauses are left out."""
        total, began, last = 0.0, None, None
        for event in self.events:
            when, kind = datetime.fromisoformat(str(event["time"])), event["event"]
            if began is None or kind == "submitted":  # a stretch that died without a word ends at its last event
                total += (last - began).total_seconds() if began and last else 0.0
                began = when if kind in BEGINNINGS else None
            last = when
            if kind in ENDS and began:
                total += (when - began).total_seconds()
                began = None
        total += (last - began).total_seconds() if began and last else 0.0
        return total or None

    @property
    def failure(self) -> dict[str, Any] | None:
        """The last `failed` event, where the run ended with it."""
        if self.state != "failed":
            return None
        return next((event for event in reversed(self.events) if event["event"] == "failed"), None)

    @property
    def rates(self) -> list[tuple[int, float]]:
        """(step, tokens per second of the whole job) of every step that recorded a rate."""
        pairs = ((int(record["step"]), _rate(record)) for record in self.metrics)
        return [(step, rate) for step, rate in pairs if rate]

    @property
    def peak_memory_gib(self) -> float | None:
        """The largest memory that any record or event of the run reports."""
        records: Iterable[dict[str, Any]] = [*self.metrics, *self.events]
        found = (number(record.get("peak_memory_gib")) for record in records)
        return max((value for value in found if value is not None), default=None)

    def degree(self, axis: str) -> int | None:
        """The size of a layout axis, from what training recorded, else from the manifest; None for stages without."""
        layout = self.training.get("layout") or self.manifest.layout
        return int(layout.get(axis, 1)) if layout else None

    def measurement(self) -> Measurement:
        """The run as a point of the scaling report."""
        data, tensor, pipeline = (self.degree(axis) or 1 for axis in ("data", "tensor", "pipeline"))
        return Measurement(
            run_id=self.id,
            data=data,
            tensor=tensor,
            pipeline=pipeline,
            processes=int(self.training.get("world_size") or data * tensor * pipeline * (self.degree("context") or 1)),
            rates=tuple(rate for _, rate in self.rates),
            threads_per_process=self.training.get("threads_per_process"),
            global_batch_tokens=self.training.get("global_batch_tokens"),
            parameters=self.training.get("parameters"),
            flops_per_token=self.training.get("flops_per_token"),
            peak_flops_per_second=self.training.get("peak_flops_per_second"),
        )


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
    """A run in its context: the stages that led to it (a chain: that it consists of), in order."""

    subject: RunFacts
    entries: list[StageEntry] = field(default_factory=list)

    @property
    def data(self) -> RunFacts | None:
        """The data preparation run."""
        return self.newest("data_prep")

    @property
    def pretrain(self) -> RunFacts | None:
        """The training run."""
        return self.newest("pretrain")

    @property
    def evaluate(self) -> RunFacts | None:
        """The evaluation run."""
        return self.newest("evaluate")

    def newest(self, stage: str) -> RunFacts | None:
        """The last readable run of that stage that isn't a mere scaling measurement."""
        found = [e.facts for e in self.entries if e.facts and e.stage == stage and not e.role]
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
    if subject.stage == "chain":
        return Story(subject, [_chain_entry(subject, stage) for stage in subject.manifest.stages])
    family: dict[str, RunFacts] = {}
    _walk(subject, family)
    return Story(subject, [StageEntry(f.stage, f.stage, f.id, facts=f) for f in family.values()])


def read_run(run: RunDirectory) -> RunFacts:
    """Reads one run directory."""
    card = run.artifacts / "card.json"
    return RunFacts(
        run=run,
        manifest=run.manifest(),
        config=run.config() if run.config_path.exists() else {},
        state=str(state_of(run)),
        events=read_events(run),
        metrics=read_metrics(run.metrics_path) if run.metrics_path.exists() else [],
        training=_read_json(run.artifacts / "training.json"),
        evaluation=_read_json(run.artifacts / "evaluation.json"),
        card=read_card(card) if card.exists() else None,
    )


def _walk(facts: RunFacts, family: dict[str, RunFacts]) -> None:
    """Adds the ancestors of a run, then the run, each once: parents come before children."""
    for parent in facts.manifest.parents.values():
        path = _locate(facts.run.path, parent.path, parent.run_id)
        if path and parent.run_id not in family:
            _walk(read_run(RunDirectory.open(path)), family)
    family.setdefault(facts.id, facts)


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


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: no readable JSON ({error})",
            expected="the file as the stage wrote it",
            action="run the stage again into a new run directory, then ask for the report of that",
        ) from error
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float | None:
    """A recorded value as a float, or None where it is absent or (a loss that diverged) not finite."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _rate(record: dict[str, Any]) -> float | None:
    tokens, seconds = number(record.get("tokens")), number(record.get("step_seconds"))
    return number(record.get("tokens_per_second")) or (tokens / seconds if tokens and seconds else None)
