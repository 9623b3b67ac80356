"""The steps of a transformers trainer as the house knows them: records, checkpoints, stops, and no NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kit.errors import RunFailure
from kit.metrics import StepRecord
from recipes.distributed.memory import peak_memory_gib
from recipes.engines.accelerate.launcher import check_wrapped
from recipes.instability import cannot_skip, check_finite
from recipes.loop import Stopwatch
from recipes.rlhf.job import Job
from recipes.stop import STOP
from recipes.training.checkpoints import Checkpoints
from recipes.training.sinks import Sinks, open_sinks

Further = Callable[[Mapping[str, float]], dict[str, float]]


class TrainerSteps(TrainerCallback):
    """What `recipes.training.steps` does for our own loop, for one that isn't ours. *Collective*: every rank has one.

    Args:
        job: The run.
        trainer: The trainer; it must log every step.
        further: Turns what it logs into further numbers for the record.

    Attributes:
        sinks: Where its records go; whoever uses them closes them.
        stopped: Whether training ended before its last step because somebody asked for it.
        folder: The checkpoint that `remember` was given.
    """

    def __init__(self, job: Job, trainer: Any, further: Further) -> None:
        if job.config.instability.action == "skip":
            raise cannot_skip(f"the trainer of rlhf with algorithm {job.config.algorithm}")
        self._job, self._trainer, self._further = job, trainer, further
        self.checkpoints = Checkpoints(job.config, job.run, job.processes)
        self.sinks: Sinks = open_sinks(job.run, job.config.logging, job.processes.first)
        self.stopped = False
        self.folder = Path()

    def remember(self, folder: Path) -> None:
        """Takes note of a checkpoint; the trainer loads it when it starts."""
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes sure that the ranks train one model.

        Raises:
            RunFailure: If each would train a model of its own.
        """
        processes, accelerator = self._job.processes, self._trainer.accelerator
        several = DistributedType.MULTI_GPU if processes.device.type == "cuda" else DistributedType.MULTI_CPU
        wanted = (several if processes.world_size > 1 else DistributedType.NO, processes.world_size)
        seen = (accelerator.distributed_type, accelerator.num_processes)
        if seen != wanted:
            raise RunFailure(
                f"the trainer sees {seen[0].value} with {seen[1]} processes",
                expected=f"{wanted[0].value} with {wanted[1]}",
                action="don't use this run: report it with its config.yaml and the versions of trl and accelerate",
            )
        check_wrapped(self._trainer.model_wrapped, processes)
        self._tokens_before = state.num_input_tokens_seen
        self._watch = Stopwatch()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """One step is done: judges it, checkpoints where that is due, and writes its record.

        Raises:
            RunFailure: If the loss or the gradient isn't a number; nothing is checkpointed after that.
        """
        if logs is None or "loss" not in logs:
            return
        config, processes, step = self._job.config, self._job.processes, state.global_step
        compute_seconds = self._watch.lap()
        check_finite(step, logs["loss"], logs.get("grad_norm", math.nan))
        stop = processes.agree_any(STOP.requested) and step < config.budget.steps
        every = config.checkpoint.every_steps
        if stop or (every is not None and step % every == 0):
            self.checkpoints.save(step, {}, self._trainer.write_state)
        checkpoint_seconds = self._watch.lap()
        record = self._record(step, logs, compute_seconds, checkpoint_seconds)
        print(f"step {step} loss {logs['loss']:.6f} norm {logs['grad_norm']:.4f}", flush=True)
        self.sinks.write(record)
        self.stopped = control.should_training_stop = stop
        self._watch = Stopwatch()

    def _record(
        self, step: int, logs: Mapping[str, float], compute_seconds: float, checkpoint_seconds: float
    ) -> StepRecord:
        job = self._job
        tokens = int(logs["num_tokens"]) - self._tokens_before
        self._tokens_before += tokens
        flops = tokens / compute_seconds * job.speed.flops_per_token
        return StepRecord(
            step=step,
            loss=logs["loss"],
            grad_norm=logs["grad_norm"],
            learning_rate=logs["learning_rate"],
            tokens=tokens,
            samples=job.config.data.global_batch_samples,
            step_seconds=self._watch.total(),
            tokens_per_second=tokens / compute_seconds,
            model_flops_per_second=flops,
            mfu=flops / job.speed.peak_flops_per_second,
            compute_seconds=compute_seconds,
            checkpoint_seconds=checkpoint_seconds,
            peak_memory_gib=job.processes.largest(peak_memory_gib(job.processes.device)),
            extra=self._further(logs),
        )
