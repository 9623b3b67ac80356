"""What TRL's trainers need to work in this house: our settings, data order, learning rate, checkpoints and records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PrinterCallback, Trainer
from transformers.utils import logging

from recipes.data import sample_numbers
from recipes.distributed.agreement import assert_equal_parameters
from recipes.engines.accelerate.launcher import accelerate_environment
from recipes.rlhf.job import Job
from recipes.rlhf.trainer_steps import Further, TrainerSteps
from recipes.schedule import learning_rate
from recipes.stop import Stopped

TRAINER_CHECKPOINT = "checkpoint-*"
"""The folder that transformers makes inside the one that it is told to write into."""


def trainer_settings(job: Job) -> dict[str, Any]:
    """Keyword arguments of a TRL configuration: the recipe's, and an end to what the libraries do of their own accord.

    TRL trains in bf16 with activation checkpointing unless told otherwise, and transformers hides losses that aren't
    numbers, reports to whatever tracker is installed, and looks for unused parameters.
    """
    config, processes = job.config, job.processes
    optimizer, share = config.optimizer, config.data.global_batch_samples // config.layout.data
    return {
        "output_dir": str(job.run.checkpoints),
        "seed": config.seed,
        "max_steps": config.budget.steps,
        "per_device_train_batch_size": config.data.micro_batch_samples,
        "gradient_accumulation_steps": share // config.data.micro_batch_samples,
        "train_sampling_strategy": "sequential",
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.eps,
        "max_grad_norm": optimizer.clip_grad,
        "bf16": config.precision == "bf16",
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "use_cpu": processes.device.type == "cpu",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": processes.device.type == "cuda",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "push_to_hub": False,
        "disable_tqdm": True,
    }


@contextmanager
def trainer_environment(job: Job) -> Iterator[None]:
    """accelerate learns our processes, nothing reaches out, and remarks about the libraries' own plans are left out."""
    with accelerate_environment(job.processes), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        said = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(said)


def one_device(settings: Any) -> Any:
    """The settings, for a process that uses one device: transformers would share a batch between all that it sees."""
    settings._n_gpu = min(1, settings.n_gpu)
    return settings


def order_of_samples(job: Job, samples: int, samples_per_step: int) -> list[int]:
    """Which sample stands at every place of the whole training: one random order after another, from the seed."""
    places = job.config.budget.steps * samples_per_step
    return [int(number) for number in sample_numbers(job.config.seed, samples, 0, places)]


class HouseTrainer(Trainer):
    """Put before a trainer of TRL's in a class's bases.

    `house` is the job. The learning rate is the recipe's schedule, TRL's count of its users is left out.
    """

    house: Job
    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """The recipe's schedule; torch counts finished steps from 0."""
        config = self.house.config
        highest, steps = config.optimizer.learning_rate, config.budget.steps
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer,
                lambda done: learning_rate(config.schedule, highest, min(done + 1, steps), steps) / highest,
            )
        return self.lr_scheduler

    def write_state(self, folder: Path) -> None:
        """Weights, optimizer, schedule, position and random numbers, in transformers' own format. *Collective*."""
        self.args.output_dir = str(folder)
        # Not TRL's own version of it, which adds a model card to every checkpoint.
        Trainer._save_checkpoint(self, self.model, None)

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


class TrainerTraining:
    """A training that a trainer of TRL's does. *Collective*: every rank makes one.

    Args:
        job: The run.
        build: Makes the trainer.
        further: Turns what TRL logs of a step into further numbers for the record.
    """

    def __init__(self, job: Job, build: Callable[[], HouseTrainer], further: Further) -> None:
        self._job = job
        with trainer_environment(job):
            self.trainer = build()
        self.trainer.remove_callback(PrinterCallback)
        self._steps = TrainerSteps(job, self.trainer, further)
        self.trainer.add_callback(self._steps)
        self.sinks = self._steps.sinks

    def train(self) -> None:
        """Does the steps that are left. *Collective*: every rank.

        Raises:
            RunFailure: If the loss isn't finite, the disk is full, or the ranks don't train one model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        steps = self._steps
        found = steps.checkpoints.resume(steps.remember)
        begin = None if found is None else str(next(steps.folder.glob(TRAINER_CHECKPOINT)))
        with trainer_environment(self._job):
            self.trainer.train(resume_from_checkpoint=begin)
        if steps.stopped:
            raise Stopped
        assert_equal_parameters(self.trainer.model.named_parameters(), self._job.processes)
