"""Tasks as Slurm jobs, through datatrove's executor: one job array a step, on machines that see the run directory."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats

from data_prep.config import ExecuteConfig
from data_prep.executors.tasks import Progress, completed, looks, run_task
from kit.errors import RunFailure, UserError
from kit.files import atomic_write

_LARGEST_ARRAY = 1000  # Slurm's own limit unless its owner has raised it
_ASK_SECONDS = 5.0
_MARKS_SECONDS = 60.0  # how late a network file system may show the marks of a job that has gone
_COMMAND_SECONDS = 60.0
_CODE = Path(__file__).resolve().parents[2]
_JOB = "slurm_job"


class SlurmExecutor:
    """Submits a job array a step and waits for the marks of its tasks.

    A job loads the libraries once, which takes seconds, and does its tasks one after the other.

    Args:
        config: partition, time, memory, cores.
        workers: jobs of a step, which share its tasks; None: one a task.

    Raises:
        UserError: Slurm's commands are not here.
    """

    def __init__(self, config: ExecuteConfig, workers: int | None) -> None:
        self.config, self.workers = config, workers
        missing = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"execute.kind is slurm, and there is no `{missing[0]}` here",
                expected="Slurm's commands on the machine that runs data_prep: a login node",
                action="start it there (`slipway run` on the cluster), or set execute.kind=local",
            )

    def execute(self, blocks: Sequence[PipelineStep], tasks: int, folder: Path, progress: Progress) -> None:
        """Run what is not finished yet. A job that an earlier attempt has left in the queue is waited for.

        Raises:
            UserError: Slurm refuses the job.
            RunFailure: tasks have ended without finishing.
            StopRequest: this process was asked to stop; the job is cancelled.
        """
        folder.mkdir(parents=True, exist_ok=True)
        done = len(completed(folder))
        progress(done, tasks)
        job = self._left_job(folder)
        if job is None and done < tasks:
            job = self._submit(blocks, tasks, folder)
        if job is None:
            return
        try:
            self._wait(job, tasks, folder, progress)
        except BaseException:
            with suppress(OSError, subprocess.SubprocessError):
                _ask("scancel", job)
            raise

    def _submit(self, blocks: Sequence[PipelineStep], tasks: int, folder: Path) -> str:
        config = self.config
        paths = [str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
        commands = [
            f"cd {shlex.quote(os.getcwd())}",
            f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
            f"export PYTHONPATH={shlex.quote(os.pathsep.join(paths))} OMP_NUM_THREADS={config.slurm_cpus}",
        ]
        executor = _Array(
            list(blocks),
            tasks=tasks,
            time=config.slurm_time,
            partition=config.slurm_partition,
            cpus_per_task=config.slurm_cpus,
            mem_per_cpu_gb=math.ceil(config.slurm_memory_gib / config.slurm_cpus),
            job_name=f"slipway-{folder.name}",
            qos="",
            env_command="; ".join(commands),
            logging_dir=str(folder),
            tasks_per_job=math.ceil(tasks / min(self.workers or tasks, _LARGEST_ARRAY)),
            with_srun=False,
        )
        try:
            executor.launch_job()
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"sbatch refuses the step {folder.name} (exit code {error.returncode}; its words are in the run's log)",
                expected=f"a partition {config.slurm_partition} that takes {config.slurm_memory_gib} GiB and "
                f"{config.slurm_cpus} cores for {config.slurm_time}",
                action="mend execute.slurm_* in the recipe; `sinfo` shows the partitions",
            ) from error
        job = str(executor.job_id)
        atomic_write(folder / _JOB, job)
        return job

    def _left_job(self, folder: Path) -> str | None:
        """The job of an earlier attempt, which died without cancelling it."""
        path = folder / _JOB
        job = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        return job if job and _queued(job) else None

    def _wait(self, job: str, tasks: int, folder: Path, progress: Progress) -> None:
        told, asked, gone_at = len(completed(folder)), time.monotonic(), None
        for _ in looks():
            done = len(completed(folder))
            if done != told:
                told = done
                progress(done, tasks)
            if done == tasks:
                return
            now = time.monotonic()
            if gone_at is not None and now - gone_at > _patience(folder):
                raise _ended(job, tasks, folder)
            if gone_at is None and now - asked > _ASK_SECONDS:
                asked = now
                gone_at = None if _queued(job) else now


class _Array(SlurmPipelineExecutor):
    """datatrove's executor, whose jobs go through their tasks as those of the other executors do."""

    def launch_merge_stats(self) -> None:
        """No second job: it would add up statistics that nobody reads here."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        """One task, on a copy of the blocks: datatrove would give all tasks of a job the same ones."""
        if not self.is_rank_completed(rank):
            run_task(self.pipeline, rank, self.tasks, Path(self.logging_dir.resolve_paths("")))
        return PipelineStats()


def _queued(job: str) -> bool:
    """Whether Slurm still has the job; where it doesn't answer, the job is believed to be there."""
    asked = _ask("squeue", "--noheader", "--jobs", job, "--format", "%T")
    if asked.returncode:
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())


def _patience(folder: Path) -> float:
    """How long marks may come after the job: a folder that shows its first job's log shows marks as fast."""
    return _MARKS_SECONDS if not any((folder / "slurm_logs").glob("*.out")) else _ASK_SECONDS


def _ended(job: str, tasks: int, folder: Path) -> RunFailure:
    left = sorted(set(range(tasks)) - completed(folder))
    states = _states(job)
    return RunFailure(
        f"{len(left)} of {tasks} tasks of the step {folder.name} did not finish in Slurm's job {job}"
        + (f" ({states})" if states else ""),
        expected="every task to finish",
        action=f"see {folder / 'slurm_logs'}, then `slipway resume` the run: finished tasks are not repeated",
    )


def _states(job: str) -> str:
    """How the array's jobs ended, where Slurm keeps accounts: `FAILED 2, TIMEOUT 1`."""
    if shutil.which("sacct") is None:
        return ""
    asked = _ask("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format", "State")
    words = [line.split()[0] for line in asked.stdout.splitlines() if line.strip()]
    counts = Counter(word for word in words if word != "COMPLETED")
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", "no answer")
