"""Small run directories as the stages leave them, made with the kit's own writers."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.config import dump
from kit.metrics import JsonlSink
from kit.run.directory import RunDirectory
from kit.run.manifest import ChainStage, Manifest, Parent, write_manifest
from kit.tokens.card import write_card
from reports.build import build_report

from .artifacts import (
    DIGEST,
    EVALUATION,
    MODELS,
    PREDICTED,
    REWARD,
    RLHF,
    SFT,
    card,
    finished_training,
    owned_record,
    record,
    reward_record,
    rlhf_record,
    sft_record,
)

# Test modules aren't packages; what several of them share lies in tests/ itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

START = "2026-01-02T03:04:{:06.3f}+00:00"


@dataclass(frozen=True)
class Runs:
    """Makes runs under one root; every method returns the run directory."""

    root: Path

    def bare(
        self,
        stage: str,
        events: Sequence[tuple[float, str]] = ((0, "submitted"), (1, "started"), (41, "finished")),
        parents: dict[str, RunDirectory] | None = None,
        stages: Sequence[ChainStage] = (),
        details: dict[str, Any] | None = None,
        predicted: dict[str, Any] | None = None,
    ) -> RunDirectory:
        run = RunDirectory.create(self.root, stage, "demo")
        origin = {name: Parent(run_id=p.id, path=str(p.path), digest=DIGEST) for name, p in (parents or {}).items()}
        manifest = Manifest(
            run_id=run.id,
            stage=stage,
            name="demo",
            created=START.format(0),
            parents=origin,
            git_commit="0123456789abcdef0123456789abcdef01234567",
            config_digest=DIGEST,
            versions={"python": "3.11.9", "numpy": "2.4.6"},
            command=["python", "-m", "recipes", "a folder/" + run.id],
            plan={"recipe": f"{stage}/demo", **({"predicted": predicted} if predicted else {})},
            key=DIGEST,
            stages=list(stages),
        )
        write_manifest(run, manifest)
        run.config_path.write_text(dump({"stage": stage, "name": "demo", "seed": 1}))
        self.happen(run, events, details)
        return run

    def happen(
        self, run: RunDirectory, events: Sequence[tuple[float, str]], details: dict[str, Any] | None = None
    ) -> None:
        with run.events_path.open("a") as file:
            for second, kind in events:
                more = details if details and kind == "failed" else {}
                file.write(json.dumps({"time": START.format(second), "event": kind, **more}) + "\n")

    def data_prep(self, **more: Any) -> RunDirectory:
        run = self.bare("data_prep", **more)
        write_card(run.artifacts / "card.json", card(run.id))
        return run

    def pretrain(
        self,
        data: RunDirectory | None = None,
        tensor: int = 1,
        replicas: int = 1,
        rates: Sequence[float] = (500.0, 800.0, 1000.0, 1000.0, 1000.0, 1000.0, 1000.0, 1000.0),
        training: dict[str, Any] | None = None,
        **more: Any,
    ) -> RunDirectory:
        run = self.bare("pretrain", parents={"data": data} if data else None, **more)
        with JsonlSink(run.metrics_path) as sink:
            for step, rate in enumerate(rates, start=1):
                sink.write(record(step, rate, len(rates)))
        recorded = {**finished_training(tensor, replicas), **(training or {})}
        (run.artifacts / "training.json").write_text(json.dumps(recorded))
        return run

    def zero(self, data: RunDirectory, ranks: int = 2, **more: Any) -> RunDirectory:
        run = self.bare("zero", parents={"data": data}, **more)
        with JsonlSink(run.metrics_path) as sink:
            for step in range(1, 9):
                sink.write(owned_record(step, ranks))
        recorded = {**finished_training(1, ranks), "engine": "deepspeed"}
        (run.artifacts / "training.json").write_text(json.dumps(recorded))
        return run

    def sft(self, model: RunDirectory, data: RunDirectory | None = None, **more: Any) -> RunDirectory:
        parents = {"model": model, **({"data": data} if data else {})}
        return self._tuned("sft", parents, SFT, [sft_record(step) for step in range(1, 13)], **more)

    def reward(self, model: RunDirectory, **more: Any) -> RunDirectory:
        return self._tuned("reward", {"model": model}, REWARD, [reward_record(step) for step in range(1, 13)], **more)

    def rlhf(self, model: RunDirectory, reward: RunDirectory, algorithm: str = "ppo", **more: Any) -> RunDirectory:
        steps = [rlhf_record(step, algorithm) for step in range(1, 21)]
        parents = {"model": model, "reward": reward}
        return self._tuned("rlhf", parents, {**RLHF, "algorithm": algorithm}, steps, **more)

    def _tuned(
        self, stage: str, parents: dict[str, RunDirectory], result: dict[str, Any], steps: list[Any], **more: Any
    ) -> RunDirectory:
        run = self.bare(stage, parents=parents, **more)
        with JsonlSink(run.metrics_path) as sink:
            for step in steps:
                sink.write(step)
        (run.artifacts / f"{stage}.json").write_text(json.dumps(result))
        return run

    def evaluate(self, model: RunDirectory, others: dict[str, RunDirectory] | None = None, **more: Any) -> RunDirectory:
        run = self.bare("evaluate", parents={"model": model, **(others or {})}, **more)
        found = {**EVALUATION, **(MODELS if others else {})}
        (run.artifacts / "evaluation.json").write_text(json.dumps(found))
        return run

    @staticmethod
    def stage(name: str, run: RunDirectory, role: str | None = None, reused: bool = False) -> ChainStage:
        kind = run.manifest().stage
        return ChainStage(id=name, stage=kind, run_id=run.id, path=str(run.path), reused=reused, role=role)

    def chain(self) -> RunDirectory:
        data = self.data_prep()
        model = self.pretrain(data, tensor=2)
        judged = self.evaluate(model)
        alone = self.pretrain(data)
        both = [900.0, 1500.0, *[1800.0] * 6]
        replicated = self.pretrain(data, replicas=2, rates=both)
        sliced = self.pretrain(data, tensor=2, rates=[700.0, 1100.0, 1300.0, 1400.0, 1400.0, 1400.0, 1400.0, 1500.0])
        stages = [
            self.stage("data", data, reused=True),
            self.stage("train", model),
            self.stage("judge", judged),
            self.stage("one", alone, role="scaling"),
            self.stage("dp2", replicated, role="scaling"),
            self.stage("tp2", sliced, role="scaling"),
        ]
        return self.bare("chain", stages=stages)

    def aligned_chain(self) -> RunDirectory:
        """Every stage once, from the crawl to the aligned model, and one scaling point."""
        data = self.data_prep()
        model = self.pretrain(data, tensor=2, predicted=PREDICTED)
        sft = self.sft(model, predicted=PREDICTED)
        reward = self.reward(sft)
        rlhf = self.rlhf(sft, reward)
        judged = self.evaluate(model, {"data": data, "sft": sft, "rlhf": rlhf})
        alone = self.pretrain(data)
        made = {"data": data, "pretrain": model, "sft": sft, "reward": reward, "rlhf": rlhf, "evaluate": judged}
        stages = [self.stage(name, run, reused=name == "data") for name, run in made.items()]
        return self.bare("chain", stages=[*stages, self.stage("one", alone, role="scaling")])


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture(scope="session")
def chain_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """A chain's run directory and the summary of its report; built once, so tests only look at it."""
    run = Runs(tmp_path_factory.mktemp("chain") / "runs").chain()
    return run, build_report(run.path)


@pytest.fixture(scope="session")
def aligned_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """The same of a chain that goes on to an aligned model."""
    run = Runs(tmp_path_factory.mktemp("aligned") / "runs").aligned_chain()
    return run, build_report(run.path)
