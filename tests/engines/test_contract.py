"""What every engine owes to the rest of the kit: one career of real processes for each case, one test a promise."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import engine_programs
import numpy as np
import pytest
import torch
from engine_programs import BATCH, STEPS
from rank_processes import run_on_ranks

from kit.errors import RunFailure
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.checkpoint.writing import write_at_once
from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.instability import Watch
from recipes.loop import Course, Speed, StepEnd, train
from recipes.model.init import first_tensor
from recipes.schedule import ScheduleConfig
from recipes.training.communication import Fixed
from recipes.training.config import InstabilityConfig

CASES = [("reference", 1)] + [(engine, ranks) for engine in ("megatron", "accelerate", "deepspeed") for ranks in (1, 2)]
SAVED, KILLED = 12, 20
"""The step whose checkpoint is completed, and the one whose checkpoint is cut off by kill -9."""


# What the ranks do.


def career(processes: Processes, engine: str, folder: str) -> None:
    """Everything that an engine does in its life; what it told lies in a file, because it ends by being killed."""
    made, sized = engine_programs.started_engine(processes, engine, {"data": processes.world_size})
    store = CheckpointStore(Path(folder) / "checkpoints", processes, keep=2)
    told: dict[str, Any] = {}
    with tokens_seen() as seen:
        told["curve"] = engine_programs.steps_of(made, 1, SAVED)
        store.save(manifest(engine, SAVED), made.save_state)
        told["curve"] += engine_programs.steps_of(made, SAVED + 1, STEPS)
    told["seen"] = np.concatenate(seen)
    told["exported"] = engine_programs.export_and_tell(processes, made, sized, Path(folder))
    told |= engine_programs.tell(processes, made, sized)
    told["not a number"] = poisoned(processes, made, sized, Path(folder))
    with (Path(folder) / f"career-{processes.rank}").open("wb") as file:
        pickle.dump(told, file)
    store.save(manifest(engine, KILLED), partial(save_and_be_killed, made))


def second_life(processes: Processes, engine: str, folder: str) -> dict[str, Any]:
    """What the next process does with what the killed one left."""
    made, _ = engine_programs.started_engine(processes, engine, {"data": processes.world_size})
    store = CheckpointStore(Path(folder) / "checkpoints", processes, keep=2)
    found, _ = store.newest_intact()
    assert found is not None
    made.load_state(found)
    curve = engine_programs.steps_of(made, SAVED + 1, STEPS)
    weights = engine_programs.weights_of(made) if processes.first else None
    store.save(manifest(engine, KILLED), made.save_state)
    return {"from": found.name, "curve": curve, "weights": weights, "then": store.steps()}


@contextmanager
def tokens_seen() -> Iterator[list[Any]]:
    """Records the token ids that reach an embedding: what the model is trained on, whatever the engine was given."""
    seen: list[Any] = []

    def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        ids = inputs[0] if inputs and type(module).__name__.endswith("Embedding") else None
        if isinstance(ids, torch.Tensor) and ids.dtype == torch.int64:
            seen.append(ids.numpy().copy())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield seen
    handle.remove()


def poisoned(processes: Processes, made: Engine, sized: Any, folder: Path) -> dict[str, Any]:
    """One step of the loop from a weight that is not a number, with a checkpoint due."""

    def whole(name: str) -> torch.Tensor:
        tensor = first_tensor(sized, 1234, name)
        return tensor.fill_(torch.nan) if name == "model.norm.weight" else tensor

    made.load_weights(whole)
    store = CheckpointStore(folder / "poisoned", processes, keep=2)

    def keep(step: int) -> None:
        store.save(manifest(made.name, step), made.save_state)

    course = Course(1, 2, BATCH, BATCH * 64, 1e-3, ScheduleConfig(), validate_every=None, checkpoint_every=1)
    records = train(
        made,
        iter([engine_programs.batch_of(made, 1)]),
        course,
        Speed(1.0, 1.0),
        watch=Watch(InstabilityConfig()),
        validate=lambda: 0.0,
        checkpoint=keep,
        settle=lambda: None,
        agree=lambda seconds: StepEnd(False, seconds, 0.0),
        clock=Fixed(0.0),
    )
    try:
        next(records)
    except RunFailure as failure:
        return {"parts": failure.parts(), "checkpoints": store.steps()}
    return {"parts": None, "checkpoints": store.steps()}


def save_and_be_killed(made: Engine, partial_folder: Path) -> None:
    """Begins to write; as soon as a file is there this process kills itself, and no code of its own runs any more."""

    def kill() -> None:
        while not any(path.is_file() for path in partial_folder.rglob("*")):
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    write_at_once(made.save_state(partial_folder))
    time.sleep(60)


def manifest(engine: str, step: int) -> CheckpointManifest:
    return CheckpointManifest(step=step, samples_seen=BATCH * step, engine=engine, layout={}, config_digest="x")


# What is asked of them.


class Lives(NamedTuple):
    """What every rank told before and after it was killed, and which checkpoints it left."""

    first: list[dict[str, Any]]
    second: list[dict[str, Any]]
    left: list[str]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Lives]:
    @functools.cache
    def lived(engine: str, ranks: int) -> Lives:
        folder = tmp_path_factory.mktemp(engine)
        try:
            run_on_ranks(career, ranks, engine, str(folder))
        except AssertionError as error:
            if "died without a word" not in str(error):
                raise
        left = sorted(path.name for path in (folder / "checkpoints").iterdir())
        first = [pickle.loads((folder / f"career-{rank}").read_bytes()) for rank in range(ranks)]
        second = run_on_ranks(second_life, ranks, engine, str(folder))
        return Lives(first, second, left)

    return lived


@pytest.fixture(scope="module")
def reference(lives: Callable[[str, int], Lives]) -> dict[str, Any]:
    return lives("reference", 1).first[0]


each = pytest.mark.parametrize(("engine", "ranks"), CASES)


@each
def test_it_learns_as_the_reference_does(
    lives: Callable[[str, int], Lives], reference: dict[str, Any], engine: str, ranks: int
) -> None:
    engine_programs.assert_learns_alike(lives(engine, ranks).first, reference)


@each
def test_only_the_counted_labels_of_the_whole_job_count(
    lives: Callable[[str, int], Lives], reference: dict[str, Any], engine: str, ranks: int
) -> None:
    engine_programs.assert_counts_alike(lives(engine, ranks).first, reference)


@each
def test_every_rank_trains_on_its_slice_of_the_common_order(
    lives: Callable[[str, int], Lives], engine: str, ranks: int
) -> None:
    stream, share = engine_programs.stream(), BATCH // ranks
    for rank, told in enumerate(lives(engine, ranks).first):
        starts = [step * BATCH + rank * share for step in range(STEPS)]
        wanted = np.concatenate([stream.batch(0, start, start + share).tokens for start in starts])
        np.testing.assert_array_equal(told["seen"], wanted)


@each
def test_plain_transformers_reads_the_model_that_was_trained(
    lives: Callable[[str, int], Lives], engine: str, ranks: int
) -> None:
    trained, exported = lives(engine, ranks).first[0]["exported"]
    assert np.abs(trained).max() > 1, "logits of a model that has learnt nothing would agree too"
    assert np.abs(exported - trained).max() < 1e-5


@each
def test_a_loss_that_is_not_a_number_stops_every_rank_and_is_not_kept(
    lives: Callable[[str, int], Lives], engine: str, ranks: int
) -> None:
    for told in lives(engine, ranks).first:
        assert told["not a number"]["parts"] is not None
        assert "step 1: loss nan" in told["not a number"]["parts"]["found"]
        assert told["not a number"]["checkpoints"] == []


@each
def test_killed_while_saving_it_goes_on_from_the_former_checkpoint_bit_by_bit(
    lives: Callable[[str, int], Lives], engine: str, ranks: int
) -> None:
    told = lives(engine, ranks)
    assert told.left == [f"step-{SAVED:08d}", f"step-{KILLED:08d}.partial"]
    for first, second in zip(told.first, told.second, strict=True):
        assert second["from"] == f"step-{SAVED:08d}"
        assert second["curve"] == first["curve"][SAVED:]
        assert second["then"] == [SAVED, KILLED]
    for name, tensor in told.first[0]["weights"].items():
        np.testing.assert_array_equal(told.second[0]["weights"][name], tensor, err_msg=name)
