"""Real runs by the real command, as a user starts them; only the input and the model are tiny."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.metrics import read_metrics
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import read_events

# Test modules aren't packages; what several of them share lies in tests/ itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORDS = """
    the model reads a page of text and learns which word comes next because every page was written by someone who
    wanted to say something about rivers mountains bread music letters winter engines harbours gardens light paper
""".split()  # noqa: SIM905  a list of words is harder to read

DATA_RECIPE = """
stage: data_prep
name: small
input: {{paths: ["{path}"]}}
tasks: 1
workers: 1
languages: {{keep: [en], threshold: 0.2}}
filters: {{gopher_repetition: null, gopher_quality: null, c4: null, fineweb: null}}
dedup: {{minhash: null}}
tokenizer: {{vocab_size: 320}}
split: {{validation_fraction: 0.2}}
"""

MODEL_RECIPE = """
stage: pretrain
name: small
engine: reference
model: {layers: 2, hidden: 32, heads: 2, kv_heads: 2, ffn: 64}
data: {sequence_length: 32, global_batch_samples: 4, micro_batch_samples: 2}
optimizer: {learning_rate: 1e-3}
schedule: {warmup_steps: 2}
budget: {steps: 30}
validation: {samples: 4}
checkpoint: {every_steps: 20, keep: 2}
logging: {peak_seconds: 0.05}
export: false
"""


def documents(count: int = 80, seed: int = 0) -> list[str]:
    """Texts of English words, all different."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(60)).capitalize() + "." for _ in range(count)]


@dataclass
class Slipway:
    """The command line on one folder of runs, and everything it started."""

    runs: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command without waiting."""
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.cli", *words, "--runs", str(self.runs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, timeout: float = 120) -> tuple[int, str]:
        """Run a command to its end: exit code and output."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def newest(self) -> RunDirectory:
        """The newest run."""
        return list_runs(self.runs)[-1]

    def wait_for(self, condition: Callable[[RunDirectory], Any], known: int, seconds: float = 90) -> RunDirectory:
        """Wait until a run beyond the `known` first ones is there and the condition holds for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            runs = list_runs(self.runs)
            if len(runs) > known and condition(runs[-1]):
                return runs[-1]
            time.sleep(0.1)
        runs = list_runs(self.runs)
        raise AssertionError(f"nothing within {seconds} s; the last run: {read_events(runs[-1]) if runs else None}")

    def count(self) -> int:
        """How many runs there are."""
        return len(list_runs(self.runs))

    def steps(self, run: RunDirectory) -> int:
        """How many steps a run has recorded."""
        return len(read_metrics(run.metrics_path))

    def rank_pid(self, run: RunDirectory, rank: int) -> int:
        """The process id of a rank."""
        return int(json.loads((run.processes / f"rank-{rank:05d}.json").read_text())["pid"])

    def processes_of(self, run: RunDirectory) -> list[int]:
        """Every process of this machine whose command line names the run."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            words = process.info["cmdline"] or []
            if str(run.path) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        return found


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes and, under runs/, one finished data_prep run."""
    folder = tmp_path_factory.mktemp("faults")
    pages = folder / "pages.jsonl"
    pages.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    (folder / "data.yaml").write_text(DATA_RECIPE.format(path=pages))
    (folder / "model.yaml").write_text(MODEL_RECIPE)
    code, output = Slipway(folder / "runs").run("run", str(folder / "data.yaml"))
    assert code == 0, output
    return folder


@pytest.fixture
def slipway(world: Path) -> Iterator[Slipway]:
    """The command line on the shared folder of runs; whatever a test leaves running is ended."""
    command = Slipway(world / "runs")
    yield command
    for process in command.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    for run in list_runs(command.runs):
        for pid in command.processes_of(run):
            os.kill(pid, signal.SIGKILL)
