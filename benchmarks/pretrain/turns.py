"""Sides of a comparison as long-lived processes that train a few steps when told; only one computes at a time.

An import takes longer than many steps, and a machine's speed drifts: short turns of processes that stay alive compare
better than whole runs one after another.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import recipes.quiet  # noqa: F401  every side inherits the settings that this leaves in the environment
from kit.errors import RunFailure
from kit.run.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
_SHOWN_LINES = 12
_END_SECONDS = 20.0


class Turn(NamedTuple):
    """A few steps of one side.

    Attributes:
        seconds: on the clock, from the moment it was told to the moment it would begin another step.
        cpu_seconds: of its first process, all threads.
        tokens: of the whole job.
        losses: of every step, before it.
        extra: what else was asked for.
    """

    seconds: float
    cpu_seconds: float
    tokens: int
    losses: list[float]
    extra: dict[str, Any]

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


class Pace:
    """A side's own end: `wait` stands before every step, `tell` after its loss is known.

    Args:
        first: Whether this is the job's first rank, the one that is told.
    """

    def __init__(self, *, first: bool = True) -> None:
        self._first, self._left = first, 0
        self._profiler: Any = None
        self._losses: list[float] = []
        self._turn: dict[str, Any] = {}
        if first:
            # Whatever else a library prints goes where errors go.
            self._answers = os.fdopen(os.dup(1), "w")
            os.dup2(2, 1)

    def start(self, tokens: int, share: Callable[[int], int] = int) -> None:
        """Says what a step of the whole job is, and how the first rank's number reaches every rank.

        Args:
            tokens: Of one step.
            share: Called by all ranks alike.
        """
        self._tokens, self._share = tokens, share

    def wait(self) -> None:
        """Returns when this side may do a step."""
        if not self._left:
            if self._first:
                self._ask()
            self._left = self._share(self._left)
            self._started, self._cpu = time.perf_counter(), time.process_time()
        self._left -= 1

    def tell(self, loss: float) -> None:
        """Keeps the loss of a step."""
        self._losses.append(loss)

    def _ask(self) -> None:
        """Answers the last turn, then waits until another one begins."""
        if self._turn:
            self._answer()
        while not self._left:
            line = sys.stdin.readline()
            if not line:
                os._exit(0)  # threads of a job that others left can hang an ordinary exit
            self._turn = json.loads(line)
            self._left = self._turn.get("steps", 0)
            if self._turn.get("what") == "peak":
                self._say({"peak": _peak()})
        self._losses = []
        if self._turn.get("what") == "profile":
            self._profiler = _started_profiler()

    def _answer(self) -> None:
        seconds, cpu = time.perf_counter() - self._started, time.process_time() - self._cpu
        extra: dict[str, Any] = {}
        if self._profiler is not None:
            from benchmarks.pretrain.shares import shares_of

            self._profiler.stop()
            extra["profile"] = shares_of(self._profiler, seconds)
            self._profiler = None
        tokens = self._tokens * self._turn["steps"]
        self._say(Turn(seconds, cpu, tokens, self._losses, extra)._asdict())

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def _started_profiler() -> Any:
    import torch

    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    profiler.start()
    return profiler


def _peak() -> float:
    """Matrix-multiply FLOP/s of this process with the threads it trains with, as the kit measures it."""
    import torch

    from recipes.distributed.peak import measure_peak
    from recipes.distributed.processes import Processes

    alone = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=torch.get_num_threads())
    return measure_peak(alone, torch.float32, seconds=1.0)[0]


class Side:
    """One side as its opponent sees it: processes that live until the context ends.

    Args:
        name: What output calls it.
        command: What comes after `python`; every rank runs it.
        run: The run directory that it is told of.
        threads: Of every rank.
        work: Folder for what it prints.
        ranks: Processes of the job.
    """

    def __init__(self, name: str, module: str, run: RunDirectory, threads: int, work: Path, ranks: int = 1) -> None:
        self.name, self.run, self.ranks = name, run, ranks
        self._command = ["-W", "ignore", "-m", module, str(run.path)]
        self._logs = [work / f"{name.replace(' ', '-')}-{rank}.log" for rank in range(ranks)]
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        for rank, path in enumerate(self._logs):
            with path.open("w") as log:
                self._started.append(
                    subprocess.Popen(
                        [sys.executable, *self._command],
                        stdin=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                        stdout=subprocess.PIPE if rank == 0 else log,
                        stderr=log,
                        cwd=ROOT,
                        env=self._environment | (self._place(rank) | address if self.ranks > 1 else {}),
                        text=True,
                    )
                )
        return self

    def _place(self, rank: int) -> dict[str, str]:
        # Not for a job of one process: Trainer would wrap its model for a distributed job, and be slower for it.
        return {"WORLD_SIZE": str(self.ranks), "RANK": str(rank), "LOCAL_RANK": str(rank)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        first = self._started[0]
        assert first.stdin is not None and first.stdout is not None
        first.stdin.close()
        for process in self._started:
            if process is not first or kind is not None:
                process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        first.stdout.close()

    def steps(self, count: int, what: str | None = None) -> Turn:
        """Trains `count` steps; the first call also waits for the start.

        Raises:
            RunFailure: If a process of it has ended.
        """
        return Turn(**self._told({"steps": count, "what": what}))

    def peak(self) -> float:
        """Matrix-multiply FLOP/s, measured now."""
        return float(self._told({"what": "peak"})["peak"])

    def _told(self, turn: dict[str, Any]) -> dict[str, Any]:
        first = self._started[0]
        assert first.stdin is not None and first.stdout is not None
        try:
            first.stdin.write(json.dumps(turn) + "\n")
            first.stdin.flush()
            line = first.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> RunFailure:
        logs = [path for path in (*self._logs, *sorted(self.run.logs.glob("rank-*.log"))) if path.is_file()]
        tails = [path.read_text(errors="replace").splitlines()[-_SHOWN_LINES:] for path in logs]
        tail = "\n  ".join(line for lines in tails for line in lines)
        shown = " ".join(self._command)
        return RunFailure(
            f"`python {shown}` ended early:\n  {tail}",
            expected="a side that trains until it is told to end",
            action="mend the reason, then measure again",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
