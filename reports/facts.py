"""Reads what one run left behind: its manifest, events and metrics, and what its stage wrote into artifacts.

Nothing is computed here and nothing is invented: what a run did not record is None or empty.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.config import load
from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events, state_of
from kit.run.manifest import Manifest
from kit.target import Target
from kit.tokens.card import DatasetCard, read_card
from reports.scaling import Measurement, StepTime

BEGINNINGS = frozenset({"submitted", "preparing", "started", "restarting"})
ENDS = frozenset({"stopped", "finished", "failed"})
RESULTS = ("training", "sft", "reward", "rlhf", "evaluation")  # artifacts/<name>.json; a stage writes one or two


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
    sft: dict[str, Any]
    reward: dict[str, Any]
    rlhf: dict[str, Any]
    evaluation: dict[str, Any]
    card: DatasetCard | None

    @property
    def id(self) -> str:
        """The run id."""
        return self.manifest.run_id

    @property
    def stage(self) -> str:
        """The stage name: data_prep, pretrain, sft, ..., chain."""
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

    @property
    def result(self) -> dict[str, Any]:
        """What the stage itself wrote: sft.json of an sft run, else training.json."""
        return {"sft": self.sft, "reward": self.reward, "rlhf": self.rlhf}.get(self.stage) or self.training

    @property
    def reconfigured(self) -> list[dict[str, Any]]:
        """What resumes changed, in order: events whose `changes` are key -> [old, new]."""
        return [event for event in self.events if event.get("event") == "reconfigured"]

    @property
    def predicted(self) -> dict[str, Any]:
        """What the plan foresaw, as the launcher recorded it; empty where it foresaw nothing."""
        changed = [event["predicted"] for event in self.reconfigured if event.get("predicted")]
        found = changed[-1] if changed else self.manifest.plan.get("predicted")
        return found if isinstance(found, dict) else {}

    def curve(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of every step that recorded a finite value under that key."""
        pairs = ((int(record["step"]), number(record.get(key))) for record in self.metrics)
        return [(step, value) for step, value in pairs if value is not None]

    def degree(self, axis: str) -> int | None:
        """The size of a layout axis, from what training recorded, else from the manifest; None for stages without."""
        layout = self.training.get("layout") or self.config.get("layout") or self.manifest.layout
        return int(layout.get(axis, 1)) if layout else None

    @property
    def target(self) -> Target:
        """Where it ran."""
        return load(Target, self.run.target_path) if self.run.target_path.exists() else Target()

    def measurement(self) -> Measurement:
        """The run as a point of the scaling report."""
        data, tensor, pipeline = (self.degree(axis) or 1 for axis in ("data", "tensor", "pipeline"))
        processes = int(self.training.get("world_size") or data * tensor * pipeline * (self.degree("context") or 1))
        zero, target = self.config.get("zero"), self.target
        link = target.link
        return Measurement(
            run_id=self.id,
            data=data,
            tensor=tensor,
            pipeline=pipeline,
            processes=processes,
            rates=tuple(rate for _, rate in self.rates),
            times=tuple(time for record in self.metrics if (time := _step_time(record))),
            recipe=str(self.manifest.plan.get("recipe", "")),
            zero_stage=int(zero["stage"]) if isinstance(zero, dict) and "stage" in zero else None,
            hosts=target.hosts_for(processes) if isinstance(target.devices_per_host, int) else 1,
            kind=target.kind,
            link=link.name if link else "",
            link_gigabits_per_second=link.gigabits_per_second if link else None,
            link_emulated=bool(link and link.emulated),
            usd_per_hour=target.usd_per_hour or (target.aws.usd_per_hour if target.aws else None),
            threads_per_process=self.training.get("threads_per_process"),
            global_batch_tokens=self.training.get("global_batch_tokens"),
            parameters=self.training.get("parameters"),
            flops_per_token=self.training.get("flops_per_token"),
            peak_flops_per_second=self.training.get("peak_flops_per_second"),
        )


def read_run(run: RunDirectory) -> RunFacts:
    """Reads one run directory."""
    card, manifest = run.artifacts / "card.json", run.manifest()
    results = {name: _read_json(run.artifacts / f"{name}.json") for name in RESULTS}
    results["training"] = results["training"] or results.get(manifest.stage, {})  # tuning keeps all in one file
    return RunFacts(
        run=run,
        manifest=manifest,
        config=run.config() if run.config_path.exists() else {},
        state=str(state_of(run)),
        events=read_events(run),
        metrics=read_metrics(run.metrics_path) if run.metrics_path.exists() else [],
        **results,
        card=read_card(card) if card.exists() else None,
    )


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


def rows_of(value: Any) -> list[dict[str, Any]]:
    """The mappings of a recorded list; empty where it isn't one (a file of another version)."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _rate(record: dict[str, Any]) -> float | None:
    tokens, seconds = number(record.get("tokens")), number(record.get("step_seconds"))
    return number(record.get("tokens_per_second")) or (tokens / seconds if tokens and seconds else None)


def _step_time(record: dict[str, Any]) -> StepTime | None:
    keys = ("compute_seconds", "communication_seconds", "data_seconds", "step_seconds")
    compute, communication, data, total = (number(record.get(key)) for key in keys)
    if compute is None or total is None:
        return None
    return StepTime(compute, communication, data or 0.0, total)
