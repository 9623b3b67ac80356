"""The real command line on one folder of runs, with a tiny dataset and recipes of two ranks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.metrics import read_metrics
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import read_events

EVERY = 20
WORDS = "the river bread music winter engine harbour garden light paper because someone wanted every page to say"
DATA = """
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
MODEL = """
name: small
parents: {data: "last:data_prep"}
model: {layers: 2, hidden: 32, heads: 2, kv_heads: 2, ffn: 64}
data: {sequence_length: 32, global_batch_samples: 16, micro_batch_samples: 2}
optimizer: {learning_rate: 1e-3}
schedule: {warmup_steps: 2}
validation: {samples: 4}
checkpoint: {every_steps: 20, keep: 2}
logging: {peak_seconds: 0.05}
export: false
"""
RECIPES = {
    # Long enough that commands, which take seconds to start, still find it running.
    "data": "stage: pretrain\nengine: megatron\nlayout: {data: 2}\nbudget: {steps: 200}\n" + MODEL,
    "tensor": "stage: pretrain\nengine: megatron\nlayout: {tensor: 2}\nbudget: {steps: 100}\n" + MODEL,
    "zero": "stage: zero\nengine: deepspeed\nlayout: {data: 2}\nzero: {stage: 2}\nbudget: {steps: 40}\n" + MODEL,
}


@dataclass
class Command:
    """`slipway` on one folder of runs, and every process of it that was started."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.folder / "runs"

    def recipe(self, name: str) -> str:
        """The file of one of RECIPES."""
        path = self.folder / f"{name}.yaml"
        path.write_text(RECIPES[name])
        return str(path)

    def make_data(self) -> None:
        """A finished data_prep run that the recipes take."""
        rng = random.Random(0)
        texts = [" ".join(rng.choice(WORDS.split()) for _ in range(60)).capitalize() + "." for _ in range(80)]
        pages = self.folder / "pages.jsonl"
        pages.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        (self.folder / "data_prep.yaml").write_text(DATA.format(path=pages))
        code, output = self.run("run", str(self.folder / "data_prep.yaml"))
        assert code == 0, output

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command without waiting."""
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.cli", *words, "--runs", str(self.runs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def begin(self, *words: str, seconds: float = 60) -> tuple[subprocess.Popen[str], RunDirectory]:
        """Start `slipway run ...`; returns as soon as the run directory is there."""
        known = {run.id for run in list_runs(self.runs)}
        process = self.start("run", *words)

        def made() -> list[RunDirectory]:
            assert process.poll() is None, process.communicate()[0]
            return [run for run in list_runs(self.runs) if run.id not in known]

        return process, until(made, seconds)[0]

    def run(self, *words: str, seconds: float = 240) -> tuple[int, str]:
        """Run the command to its end: exit code and output."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output

    def end_all(self) -> None:
        """Kill what is left of this command line (jobs it started are the backend's to end)."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


def until(condition: Callable[[], Any], seconds: float = 90, words: Callable[[], object] = lambda: "") -> Any:
    """Wait until a condition holds; what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {words()}")


def steps(run: RunDirectory) -> int:
    """How many steps the run directory here knows."""
    return len(list(read_metrics(run.metrics_path)))


def reach(run: RunDirectory, step: int, process: subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
    """Wait until a step is known here; not longer than the command that watches it lives."""

    def there() -> bool:
        assert process is None or process.poll() is None or steps(run) >= step, process.communicate()[0]
        return steps(run) >= step

    until(there, seconds, lambda: (read_events(run), sorted(os.listdir(run.logs))))


def losses(run: RunDirectory) -> list[tuple[int, float]]:
    """Every step's loss in the order of the file: equal for two runs only where they saw the same samples."""
    return [(int(record["step"]), float(record["loss"])) for record in read_metrics(run.metrics_path)]


def delay_of(run: RunDirectory, kind: str, seconds: float = 120) -> float:
    """Waits for an event; how long after it was written where the job runs it was readable here, in seconds."""
    event = until(lambda: events(run, kind), seconds)[-1]
    return (datetime.now(UTC) - datetime.fromisoformat(str(event["time"]))).total_seconds()


def newest_checkpoint_before(run: RunDirectory, kind: str) -> int:
    """The step of the last checkpoint that was whole when the first event of a kind came."""
    happened = read_events(run)
    first = next(index for index, event in enumerate(happened) if event["event"] == kind)
    return max(int(event["step"]) for event in happened[:first] if event["event"] == "checkpointed")


def events(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    """The run's events of one kind."""
    return [event for event in read_events(run) if event["event"] == kind]
