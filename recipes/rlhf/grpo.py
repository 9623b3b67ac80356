"""Group relative policy optimisation (Shao et al. 2024) by TRL: groups of answers, judged against their own mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate, Message
from recipes.rewards.rules import rule_reward
from recipes.rlhf.job import Job, Trained
from recipes.rlhf.reward_source import build_reward
from recipes.rlhf.trainer import HouseTrainer, TrainerTraining, one_device, order_of_samples, trainer_settings


def further(logs: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a step by PPO's names for them; KL is estimated as r - 1 - log r, r = p_reference / p."""
    tokens = logs["completions/mean_length"]
    kl = {"kl_nats_per_token": logs["kl"], "kl_nats_per_answer": logs["kl"] * tokens} if "kl" in logs else {}
    return {
        "reward": logs["reward"],
        "reward_std": logs["reward_std"],
        "rule_reward": logs["rule_reward"],
        **kl,
        "entropy": logs["entropy"],
        "clip_fraction": logs["clip_ratio/region_mean"],
        "answer_tokens": tokens,
        "ended_fraction": 1.0 - logs["completions/clipped_ratio"],
    }


class _Trainer(HouseTrainer, GRPOTrainer):
    template: ChatTemplate

    def _tokenize_prompts(self, prompts: list[list[dict[str, str]]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The template's ids: TRL would render text, and search it for the template's marks."""
        return [prompt_ids(self.template, prompt) for prompt in prompts], None, {}


def prompt_ids(template: ChatTemplate, prompt: Sequence[dict[str, str]]) -> list[int]:
    """The ids of a prompt that is written as TRL writes it."""
    return template.prompt_ids([Message(entry["role"], entry["content"]) for entry in prompt])  # type: ignore[arg-type]


class GrpoTraining:
    """See `recipes.rlhf.job.Training`. A step answers global_batch_samples / group_samples prompts.

    Raises:
        UserError: If the reward model doesn't fit.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model, self._tokenizer = load_model(job.model, job.processes.device)
        self._template = ChatTemplate.of(self._tokenizer)
        self._reward = build_reward(job)
        self._rules = rule_reward(job.config.reward.rules)
        self.training = TrainerTraining(job, self._build, further)
        self.sinks = self.training.sinks

    def go(self) -> Trained:
        """Trains."""
        self.training.train()
        return Trained(self.training.trainer.model, {"group_samples": self._job.config.grpo.group_samples})

    def _build(self) -> HouseTrainer:
        job, config = self._job, self._job.config
        settings = GRPOConfig(
            **trainer_settings(job),
            num_generations=config.grpo.group_samples,
            max_completion_length=config.generation.new_tokens,
            temperature=config.generation.temperature,
            top_k=config.generation.top_k,
            beta=config.grpo.beta,
            epsilon=config.grpo.clip,
            loss_type="grpo",
            shuffle_dataset=False,
        )
        rows = {
            "prompt": [[vars(message) for message in one.prompt] for one in job.conversations],
            "number": list(range(len(job.conversations))),
        }
        prompts_per_step = config.data.global_batch_samples // config.grpo.group_samples
        order = order_of_samples(job, len(job.conversations), prompts_per_step)
        # An answer ends where it ends in conversation; TRL asks the model's own settings for that.
        self._model.generation_config.eos_token_id = list(self._template.stop_ids)
        trainer = _Trainer(
            model=self._model,
            reward_funcs=[self._score],
            args=one_device(settings),
            train_dataset=Dataset.from_dict(rows).select(order),
            processing_class=self._tokenizer,
        )
        trainer.house, trainer.template = job, self._template
        return trainer

    def _score(self, completion_ids: list[list[int]], number: list[int], log_metric: Any, **kwargs: Any) -> list[float]:
        """The reward of every answer of this rank."""
        conversations = [self._job.conversations[n] for n in number]
        answers = [self._template.text_of(ids) for ids in completion_ids]
        judged = self._rules(conversations, answers)
        log_metric("rule_reward", sum(judged) / len(judged))
        return self._reward(conversations, answers)
