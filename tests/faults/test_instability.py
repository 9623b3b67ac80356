"""Gradients that are not numbers and losses that spike, in real runs of real engines on several ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
import torch
from rank_processes import run_on_ranks

from kit.config import parse, to_data
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events
from recipes.data import Batch, batches
from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.instability import Unstable
from recipes.loop import Speed
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig
from recipes.stop import STOP, Stopped
from recipes.training.steps import Steps

STEPS, BAD = 6, 4


def started(
    processes: Processes, folder: str, instability: dict[str, Any], steps: int = STEPS, **settings: Any
) -> tuple[PretrainConfig, Engine, Steps]:
    """A run of the reference engine on one rank, of megatron's with two data ranks on two."""
    engine = "reference" if processes.world_size == 1 else "megatron"
    base, model = engine_programs.configuration(engine, {"data": processes.world_size}, layers=2)
    changes = {"instability": instability, "budget": {"steps": steps}, "schedule": {"kind": "constant"}}
    config = parse(PretrainConfig, to_data(base) | changes | settings, "test")
    run = RunDirectory(Path(folder))
    for path in (run.checkpoints, run.artifacts):
        path.mkdir(parents=True, exist_ok=True)
    made = build_engine(config, model, processes, torch.float32)
    return config, made, Steps(config, run, processes, made, Speed(1e6, 1e12))


def go(config: PretrainConfig, made: Engine, steps: Steps, given: Callable[[Batch], Batch]) -> None:
    """Begins or goes on as a stage does."""

    def feed(which: range) -> Iterator[Batch]:
        for batch in batches(engine_programs.stream(), which, 8, made.data_rank, made.data_degree):
            yield given(batch)

    with steps.sinks:
        notes = steps.resume()
        if notes is None:
            model = config.model.with_vocab(engine_programs.VOCAB)
            made.load_weights(partial(first_tensor, model, 1234))
            notes = {"validation_loss_before": 1.5}
        assert notes == {"validation_loss_before": 1.5}
        steps.go(feed, lambda: 0.0, notes)


@contextmanager
def poison() -> Iterator[dict[str, bool]]:
    """While `armed`, the gradient that reaches an embedding is not a number; the loss is as it was."""
    state = {"armed": False}

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        embeds = "Embedding" in type(module).__name__ and isinstance(output, torch.Tensor)
        if state["armed"] and embeds and output.requires_grad:
            output.register_hook(lambda gradient: gradient * math.nan)

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    yield state
    handle.remove()


def poisoned_run(processes: Processes, folder: str, instability: dict[str, Any], bad: list[int]) -> dict[str, Any]:
    """A run in whose bad steps the last rank's gradient is not a number."""
    config, made, steps = started(processes, folder, instability, checkpoint={"every_steps": 2})
    weights: dict[int, Any] = {}
    with poison() as state:

        def given(batch: Batch) -> Batch:
            state["armed"] = batch.step in bad and processes.rank == processes.world_size - 1
            weights[batch.step] = engine_programs.weights_of(made)
            return batch

        failure = None
        try:
            go(config, made, steps, given)
        except Unstable as error:
            failure = error.parts()
    moved = None
    if processes.first:
        moved = {
            step: any((weights[step][name] != weights[step + 1][name]).any() for name in weights[step])
            for step in sorted(weights)[:-1]
        }
    return {"failure": failure, "moved": moved}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_gradient_that_is_not_a_number_is_left_out_and_counted(tmp_path: Path, ranks: int) -> None:
    told = run_on_ranks(poisoned_run, ranks, str(tmp_path), {"action": "skip"}, [BAD])
    assert [one["failure"] for one in told] == [None] * ranks
    assert told[0]["moved"] == {step: step != BAD for step in range(1, STEPS)}, "no weight moved in the bad step"
    run = RunDirectory(tmp_path)
    records = {record["step"]: record for record in read_metrics(run.metrics_path)}
    assert [records[step]["skipped_steps"] for step in range(1, STEPS + 1)] == [0, 0, 0, 1, 1, 1]
    assert records[BAD]["grad_norm"] == "nan"
    assert math.isfinite(records[BAD]["loss"])
    assert all(math.isfinite(records[step]["grad_norm"]) for step in records if step != BAD)
    events = [event for event in read_events(run) if event["event"] == "step_skipped"]
    assert [(event["step"], event["reason"], event["grad_norm"]) for event in events] == [(BAD, "not a number", "nan")]
    assert (events[0]["first_sample"], events[0]["samples"]) == ((BAD - 1) * 8, 8)


@pytest.mark.parametrize("ranks", [1, 2])
def test_stopping_leaves_the_last_good_checkpoint(tmp_path: Path, ranks: int) -> None:
    told = run_on_ranks(poisoned_run, ranks, str(tmp_path), {"action": "stop"}, [BAD])
    assert all(one["failure"] == told[0]["failure"] for one in told)
    assert told[0]["failure"]["found"].startswith(f"step {BAD}: loss ")
    run = RunDirectory(tmp_path)
    assert [record["step"] for record in read_metrics(run.metrics_path)] == [1, 2, 3]
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    # Resumed, with the fault gone, it goes on from there.
    assert run_on_ranks(poisoned_run, ranks, str(tmp_path), {"action": "stop"}, [])[0]["failure"] is None
    assert [event["step"] for event in read_events(run) if event["event"] == "resumed"] == [2]
    assert [record["step"] for record in read_metrics(run.metrics_path)] == list(range(1, STEPS + 1))


def test_a_run_that_skips_everything_stops(tmp_path: Path) -> None:
    told = run_on_ranks(poisoned_run, 1, str(tmp_path), {"action": "skip", "most_skips": 2}, [3, 4, 5])
    assert "2 steps in a row" in told[0]["failure"]["found"]
    assert [record["step"] for record in read_metrics(RunDirectory(tmp_path).metrics_path)] == [1, 2, 3]


SPIKES: dict[str, Any] = {"action": "skip", "spike_factor": 1.05, "window": 4}
SPIKE_STEPS, NOISE, CUT = 16, (7, 11, 12), 9
"""Of the steps whose batches are noise two come so soon after the cut that there are not four losses since."""


def spiking_run(processes: Processes, folder: str, stop_after: int | None) -> str:
    """All steps, or as many as there are before somebody asks to stop."""
    STOP.requested = False
    config, made, steps = started(processes, folder, SPIKES, SPIKE_STEPS, checkpoint={"every_steps": 50})

    def given(batch: Batch) -> Batch:
        STOP.requested = batch.step == stop_after
        if batch.step not in NOISE:
            return batch
        tokens = np.random.default_rng(batch.step).integers(0, engine_programs.VOCAB, batch.tokens.shape)
        return replace(batch, tokens=tokens, labels=np.roll(tokens, -1, axis=1))

    try:
        go(config, made, steps, given)
    except Stopped:
        return "stopped"
    return "finished"


def test_a_run_that_spikes_after_a_resume_skips_the_same_steps(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_on_ranks(spiking_run, 1, str(whole), None) == ["finished"]
    assert run_on_ranks(spiking_run, 1, str(cut), CUT) == ["stopped"]
    assert run_on_ranks(spiking_run, 1, str(cut), None) == ["finished"]
    told = [
        [(record["step"], record["loss"], record["skipped_steps"]) for record in read_metrics(folder / "metrics.jsonl")]
        for folder in (whole, cut)
    ]
    assert told[0] == told[1], "the same losses, bit by bit, and the same steps left out"
    events = [event for event in read_events(RunDirectory(cut)) if event["event"] == "step_skipped"]
    assert [(event["step"], event["reason"]) for event in events] == [(step, "spike") for step in NOISE]
