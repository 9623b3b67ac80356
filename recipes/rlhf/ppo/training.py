"""PPO as the rlhf stage runs it: the kit's own engine under the kit's own loop."""

from __future__ import annotations

import math
from collections.abc import Iterator

from recipes.rlhf.job import Job, Trained
from recipes.rlhf.ppo.engine import build_ppo
from recipes.rlhf.ppo.prompts import PromptBatch, prompt_batches
from recipes.rlhf.reward_source import build_reward
from recipes.training.steps import Steps


class PpoTraining:
    """See `recipes.rlhf.job.Training`. A sample of the batch is a prompt with its answer.

    Raises:
        UserError: If the reward model doesn't fit.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine = build_ppo(job.config, job.model, build_reward(job), job.processes)
        self._steps = Steps(job.config, job.run, job.processes, self._engine, job.speed)
        self.sinks = self._steps.sinks

    def go(self) -> Trained:
        """Trains."""
        notes = self._steps.resume() or {}
        # The stage is measured before and after; the configuration refuses validation in between.
        self._steps.go(self._feed, lambda: math.nan, notes)
        return Trained(self._engine.model, {"kl_coefficient": self._engine.kl_coefficient})

    def _feed(self, steps: range) -> Iterator[PromptBatch]:
        config, engine = self._job.config, self._engine
        whole, rank, degree = config.data.global_batch_samples, engine.data_rank, engine.data_degree
        return prompt_batches(self._job.conversations, steps, whole, config.seed, rank, degree)
