"""Data preparation killed again and again, in every step, at moments that a seed chooses: the same bytes in the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from kit.config import dump
from kit.run.directory import RunDirectory
from kit.run.events import RunState, read_events, state_of

RECIPE = {
    "stage": "data_prep",
    "name": "killed",
    "input": {"paths": ["data_prep/sample/docs.warc.gz"], "limit": 80},
    "tasks": 6,
    "workers": 2,
    "languages": {"keep": ["en"]},
    "filters": dict.fromkeys(("gopher_repetition", "gopher_quality", "c4", "fineweb")),
    "tokenizer": {"vocab_size": 600},
    "split": {"validation_fraction": 0.1},
}
PARTS = 6  # a kill in each of so many equal parts of the events that a whole run writes


def _products(run: RunDirectory) -> dict[str, bytes]:
    files = [path for path in run.artifacts.rglob("*") if path.is_file() and path.name != "card.json"]
    return {str(path.relative_to(run.artifacts)): path.read_bytes() for path in files}


def _progress(run: RunDirectory) -> int:
    """How far a run has come: the tasks of all steps that it has told of, each once."""
    return len({(event["block"], event["done"]) for event in read_events(run) if event["event"] == "progress"})


def test_kills_in_every_step_change_nothing(world: Path, slipway: Any) -> None:
    path = world / "killed.yaml"
    path.write_text(dump(RECIPE))
    code, output = slipway.run("run", str(path), "--set", "workers=1")
    assert code == 0, output
    whole = slipway.newest()
    length, expected = _progress(whole), _products(whole)
    assert {"shards/train.bin", "tokenizer/tokenizer.model"} <= set(expected), sorted(expected)

    rng = random.Random(20)
    known, deaths = slipway.count(), 0
    process = slipway.start("run", str(path))
    for part in range(PARTS):
        moment = rng.randrange(part * length // PARTS + 1, (part + 1) * length // PARTS)
        run = slipway.wait_for(lambda run, moment=moment: _reached(run, moment, slipway), known)
        time.sleep(rng.random() * 0.1)
        _kill(slipway.processes_of(run), worker=part % 2 == 1)
        output, _ = process.communicate(timeout=120)
        assert slipway.processes_of(run) == []
        if state_of(run) is RunState.FINISHED:  # a worker that had done its last task: nobody misses it
            break
        assert process.returncode == 1, output
        assert state_of(run) is RunState.FAILED
        deaths += 1
        process = slipway.start("resume", run.id)
    assert deaths >= PARTS // 2, f"the run died {deaths} times only"
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert state_of(run) is RunState.FINISHED
    assert _products(run) == expected
    done = [(e["block"], e["done"]) for e in read_events(run) if e["event"] == "progress"]
    assert len(done) < 3 * length, "finished tasks were done again"


def _reached(run: RunDirectory, moment: int, slipway: Any) -> bool:
    """Whether a run has come so far, and is at work, or has ended well before anybody looked."""
    return _progress(run) >= moment and (bool(slipway.processes_of(run)) or state_of(run) is RunState.FINISHED)


def _kill(processes: list[int], worker: bool) -> None:
    """SIGKILL to the process of the run, or to a worker of it where there is one at this moment."""
    if processes:
        first, *workers = sorted(processes)
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.kill(workers[0] if worker and workers else first, signal.SIGKILL)
