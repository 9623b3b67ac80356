"""Small run directories as the stages leave them, made with the kit's own writers."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.config import dump
from kit.metrics import JsonlSink, StepRecord
from kit.run.directory import RunDirectory
from kit.run.manifest import ChainStage, Manifest, Parent, write_manifest
from kit.tokens.card import (
    BlockCard,
    DatasetCard,
    Example,
    InputCard,
    LanguageCard,
    SplitCard,
    TokenizerCard,
    write_card,
)
from reports.build import build_report

HOSTILE = "<script>alert('crawled')</script> & \"quotes\" </details> | `pipe`"
DIGEST = "sha256:" + "ab" * 32
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

    def evaluate(self, model: RunDirectory, **more: Any) -> RunDirectory:
        run = self.bare("evaluate", parents={"model": model}, **more)
        (run.artifacts / "evaluation.json").write_text(json.dumps(EVALUATION))
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


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture(scope="session")
def chain_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """A chain's run directory and the summary of its report; built once, so tests only look at it."""
    run = Runs(tmp_path_factory.mktemp("chain") / "runs").chain()
    return run, build_report(run.path)


def record(step: int, rate: float, steps: int) -> StepRecord:
    last = step == steps
    return StepRecord(
        step=step,
        loss=8.0 * math.exp(-0.12 * step),
        learning_rate=1e-3,
        tokens=2048,
        samples=16,
        step_seconds=2048 / rate,
        tokens_per_second=rate,
        compute_seconds=2000 / rate,
        data_seconds=48 / rate,
        peak_memory_gib=0.5 + 0.01 * step,
        validation_loss=4.0 if last else None,
    )


def finished_training(tensor: int, replicas: int) -> dict[str, Any]:
    world = tensor * replicas
    return {
        "flops_convention": "megatron",
        "flops_per_token": 5_000_000.0,
        "peak_flops_per_second": 5e10 * world,
        "peak_source": "measured fp32 matmul 1024, one thread a process",
        "parameters": 1_250_000,
        "parameters_non_embedding": 750_000,
        "layout": {"data": replicas, "tensor": tensor, "pipeline": 1, "context": 1, "interleave": 1, "sequence": False},
        "world_size": world,
        "threads_per_process": 1,
        "device": "cpu",
        "engine": "megatron",
        "validation_loss_before": 8.5,
        "validation_loss_after": 4.0,
        "export_max_logit_difference": 1.2e-6,
        "global_batch_tokens": 2048,
        "tokens": 16384,
        "steps": 8,
        "resumed_from": [],
    }


EVALUATION = {
    "bits_per_byte": 2.0,
    "bits_per_byte_untrained": 5.0,
    "bits_per_byte_unigram": 3.0,
    "perplexity": 60.0,
    "perplexity_untrained": 4100.0,
    "perplexity_unigram": 600.0,
    "tokens": 9000,
    "text_bytes": 30000,
    "convention": "bits of all predicted tokens over the text's UTF-8 bytes",
    "samples": [{"prompt": "The manual", "text": "The manual says <b>bold</b>", "temperature": 0.8}],
}


def card(run_id: str) -> DatasetCard:
    examples = {"too short": [Example(id="record-1", url="javascript:alert(1)", text=HOSTILE)]}
    return DatasetCard(
        name="demo",
        created_by=run_id,
        splits={
            "train": split("train", documents=54, tokens=90_000, text_bytes=300_000),
            "validation": split("validation", documents=6, tokens=9_000, text_bytes=30_000),
        },
        tokenizer=TokenizerCard(
            kind="sentencepiece-bpe", vocab_size=4096, fingerprint="cd" * 32, file="tokenizer/tokenizer.model",
            eod_id=2, pad_id=3,
        ),
        blocks=[
            BlockCard(
                name="extract", documents_in=100, documents_out=90, bytes_in=2_000_000, bytes_out=500_000, seconds=3.0,
                dropped={"no text": 10},
            ),
            BlockCard(
                name="quality", documents_in=90, documents_out=70, bytes_in=500_000, bytes_out=400_000, seconds=1.5,
                dropped={"too short": 15, "repetition": 5}, examples=examples,
            ),
            BlockCard(
                name="minhash", documents_in=70, documents_out=60, bytes_in=400_000, bytes_out=330_000, seconds=2.0,
                dropped={"near duplicate": 10},
            ),
        ],
        languages={"en": LanguageCard(documents=40, bytes=230_000), "de": LanguageCard(documents=20, bytes=100_000)},
        inputs=[InputCard(path="docs.warc.gz", bytes=700_000, sha256="ef" * 32)],
        records_corrupt=3,
        config_digest=DIGEST,
        documents_in=100,
        documents_out=60,
    )  # fmt: skip


def split(name: str, documents: int, tokens: int, text_bytes: int) -> SplitCard:
    return SplitCard(
        prefix=f"shards/{name}", documents=documents, tokens=tokens, text_bytes=text_bytes,
        sha256_bin="01" * 32, sha256_idx="23" * 32,
    )  # fmt: skip
