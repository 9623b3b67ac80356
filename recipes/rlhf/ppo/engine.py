"""PPO on a language model: answer, score, learn. One optimizer step of the stage is one batch of prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.checkpoint.writing import Writing
from recipes.distributed.processes import DTYPES, Processes
from recipes.engines.accelerate.stepper import Stepper
from recipes.engines.protocol import StepResult
from recipes.rewards.rules import RewardFunction, rule_reward
from recipes.rlhf.ppo.advantages import (
    generalised_advantages,
    penalised_rewards,
    steered_coefficient,
    whitened,
)
from recipes.rlhf.ppo.losses import policy_losses, token_entropies, token_log_probs, value_losses
from recipes.rlhf.ppo.policy import PolicyWithValue, answer_logits
from recipes.rlhf.ppo.prompts import PromptBatch, draws, mini_batch_rows
from recipes.rlhf.ppo.rollout import Rollouts, Sampling, roll_out

if TYPE_CHECKING:
    from recipes.rlhf.config import RlhfConfig

STATE_FILE = "ppo.json"


@dataclass(frozen=True)
class Lessons:
    """What a batch of rollouts teaches, token by token: [samples, answer columns]."""

    rollouts: Rollouts
    advantages: Tensor
    returns: Tensor


@dataclass
class Sums:
    """Sums over this rank's answer tokens and all updates of a step."""

    loss: float = 0.0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    policy_clips: float = 0.0
    value_clips: float = 0.0
    tokens: float = 0.0


class PpoEngine:
    """Owns policy, value head, reference and optimizer of one rank; `recipes.loop.Trainable`.

    One step: answer the prompts, score the answers, turn scores into advantages, then several epochs of clipped
    updates on mini-batches (Schulman et al. 2017, algorithm 1; Ouyang et al. 2022, section 3.5). Everything random is
    a function of (seed, step) and the place in the whole batch, so nothing random is kept in a checkpoint, and the
    number of ranks changes results by rounding alone.

    Args:
        config: The recipe.
        model: The policy, fp32, on the device; also the reference that it is held to, as it is now.
        template: The chat template of its tokenizer.
        reward: What is to be raised.
        rules: What is measured beside it, as `rule_reward`.
        processes: The job.
    """

    name = "ppo"

    def __init__(
        self,
        config: RlhfConfig,
        model: Any,
        template: ChatTemplate,
        reward: RewardFunction,
        rules: RewardFunction,
        processes: Processes,
    ) -> None:
        self.data_rank, self.data_degree = processes.rank, config.layout.data
        self._seed, self._micro, self._ppo = config.seed, config.data.micro_batch_samples, config.ppo
        self._new_tokens = config.generation.new_tokens
        self._template, self._reward, self._rules, self._processes = template, reward, rules, processes
        self._sampling = Sampling(
            temperature=config.generation.temperature,
            stop_ids=template.stop_ids,
            pad_id=template.pad_id,
            context=getattr(model.config, "max_position_embeddings", None),
            batch_rows=config.ppo.rollout_samples,
        )
        self._reference = deepcopy(model).eval().requires_grad_(False)
        self._dtype = DTYPES[config.precision]
        # Without dropout: a ratio of probabilities must be 1 as long as the weights are the same.
        self._policy = PolicyWithValue(model).eval()
        self._stepper = Stepper(self._policy, config, processes, self._dtype)
        self.kl_coefficient = config.ppo.kl_coefficient

    @property
    def model(self) -> Any:
        """The bare policy, without the value head."""
        return self._policy.model

    def train_step(self, batch: PromptBatch, learning_rate: float) -> StepResult:
        """Answers a batch of prompts and learns from it. *Collective*: every rank, each with its own prompts."""
        rollouts = self._roll_out(batch)
        conversations, answers = list(batch.conversations), [self._template.text_of(a) for a in rollouts.answers()]
        rewards = self._reward(conversations, answers)
        lessons, kl = self._lessons(rollouts, rewards)
        sums, norms = Sums(), []
        for epoch in range(self._ppo.epochs):
            for rows in mini_batch_rows(batch, epoch, self._ppo.mini_batches, self._seed):
                norms.append(self._update(lessons, rows, learning_rate, sums))
        told = self._told(batch, rollouts, sums, kl, sum(rewards), sum(self._rules(conversations, answers)))
        if self._ppo.target_kl is not None:
            self.kl_coefficient = steered_coefficient(
                self.kl_coefficient, told["kl_nats_per_answer"], self._ppo.target_kl
            )
        loss = self._processes.total(sums.loss) / self._processes.total(sums.tokens)
        tokens = round(self._processes.total(float(sum(rollouts.lengths()))))
        return StepResult(loss, sum(norms) / len(norms), tokens, told)

    def save_state(self, folder: Path) -> Writing:
        """Policy, value head, optimizer, and the KL coefficient. *Collective*: every rank."""
        if self._processes.first:
            (folder / STATE_FILE).write_text(json.dumps({"kl_coefficient": self.kl_coefficient}) + "\n")
        return self._stepper.save(folder)

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote, bit for bit. *Collective*: every rank."""
        self._stepper.load(folder)
        self.kl_coefficient = json.loads((folder / STATE_FILE).read_text())["kl_coefficient"]

    def _roll_out(self, batch: PromptBatch) -> Rollouts:
        prompts = [self._template.prompt_ids(conversation.prompt) for conversation in batch.conversations]
        with self._autocast():
            return roll_out(self._policy, prompts, draws(batch, self._new_tokens, self._seed), self._sampling)

    def _lessons(self, rollouts: Rollouts, rewards: Sequence[float]) -> tuple[Lessons, Tensor]:
        """Advantages and returns, and log p - log p_reference [samples, answer columns] of every answer token."""
        ppo, mask, total = self._ppo, rollouts.answer_mask, self._processes.total
        scores = torch.tensor(rewards, dtype=rollouts.values.dtype, device=mask.device)
        scores = scores - ppo.missing_end_penalty * (~rollouts.ended).to(scores.dtype)
        if ppo.whiten_rewards:
            scores = whitened(scores, torch.ones_like(scores, dtype=torch.bool), total)
        reference = self._reference_log_probs(rollouts)
        earned = penalised_rewards(scores, rollouts.log_probs, reference, mask, self.kl_coefficient)
        advantages, returns = generalised_advantages(earned, rollouts.values, mask, ppo.gamma, ppo.lam)
        if ppo.whiten_advantages:
            advantages = whitened(advantages, mask, total)
        ratios = torch.where(mask, rollouts.log_probs - reference, 0.0)
        return Lessons(rollouts, advantages, returns), ratios

    @torch.no_grad()
    def _reference_log_probs(self, rollouts: Rollouts) -> Tensor:
        found = torch.zeros_like(rollouts.log_probs)
        for rows in self._micro_batches(rollouts, range(len(found)), self._ppo.rollout_samples):
            ids, mask, tokens = rollouts.columns_of(rows)
            with self._autocast():
                logits = answer_logits(self._reference, ids, mask, tokens)
            found[rows, :tokens] = token_log_probs(logits, ids[:, -tokens:], self._sampling.temperature)
        return found

    def _update(self, lessons: Lessons, rows: Sequence[int], learning_rate: float, sums: Sums) -> float:
        """One optimizer step on a mini-batch; returns the gradient norm. *Collective*: every rank."""
        pieces = self._micro_batches(lessons.rollouts, rows, self._micro)
        count = self._processes.total(float(lessons.rollouts.answer_mask[list(rows)].sum()))
        losses = (self._loss_sum(lessons, piece, sums) / count for piece in pieces)
        return self._stepper.step(losses, learning_rate, len(pieces))

    def _loss_sum(self, lessons: Lessons, rows: list[int], sums: Sums) -> Tensor:
        """The loss of some rows, summed over their answer tokens."""
        rollouts, ppo = lessons.rollouts, self._ppo
        ids, mask, tokens = rollouts.columns_of(rows)
        counted = rollouts.answer_mask[rows, :tokens]
        logits, values = self._stepper.wrapped(ids, mask, tokens)
        log_probs = token_log_probs(logits, ids[:, -tokens:], self._sampling.temperature)
        policy, policy_clips = policy_losses(
            log_probs, rollouts.log_probs[rows, :tokens], lessons.advantages[rows, :tokens], ppo.clip_policy
        )
        value, value_clips = value_losses(
            values, rollouts.values[rows, :tokens], lessons.returns[rows, :tokens], ppo.clip_value
        )
        policy_sum, value_sum = policy[counted].sum(), value[counted].sum()
        sums.policy_loss += policy_sum.item()
        sums.value_loss += value_sum.item()
        sums.policy_clips += policy_clips[counted].sum().item()
        sums.value_clips += value_clips[counted].sum().item()
        sums.tokens += counted.sum().item()
        loss = policy_sum + ppo.value_coefficient * value_sum
        if ppo.entropy_coefficient:
            entropies = token_entropies(logits, self._sampling.temperature)
            loss = loss - ppo.entropy_coefficient * entropies[counted].sum()
        sums.loss += loss.item()
        return loss

    def _told(
        self, batch: PromptBatch, rollouts: Rollouts, sums: Sums, ratios: Tensor, reward: float, rule_reward: float
    ) -> dict[str, float]:
        """The numbers of a step, over the whole job. *Collective*: every rank."""
        total, whole = self._processes.total, batch.whole
        tokens, updated = total(float(rollouts.answer_mask.sum())), total(sums.tokens)
        kl = total(float(ratios.double().sum()))
        return {
            "reward": total(reward) / whole,
            "rule_reward": total(rule_reward) / whole,
            "kl_nats_per_token": kl / tokens,
            "kl_nats_per_answer": kl / whole,
            "kl_coefficient": self.kl_coefficient,
            "policy_loss": total(sums.policy_loss) / updated,
            "value_loss": total(sums.value_loss) / updated,
            "clip_fraction": total(sums.policy_clips) / updated,
            "value_clip_fraction": total(sums.value_clips) / updated,
            "entropy": total(float(rollouts.entropies.double().sum())) / tokens,
            "answer_tokens": tokens / whole,
            "ended_fraction": total(float(rollouts.ended.sum())) / whole,
        }

    def _micro_batches(self, rollouts: Rollouts, rows: Sequence[int], samples: int) -> list[list[int]]:
        """Rows in groups of like length, so that little is padding."""
        lengths = rollouts.lengths()
        order = sorted(rows, key=lambda row: lengths[row])
        return [order[start : start + samples] for start in range(0, len(order), samples)]

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = self._processes.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16)


def build_ppo(config: RlhfConfig, model_dir: Path, reward: RewardFunction, processes: Processes) -> PpoEngine:
    """Loads a model directory as policy and reference. *Collective*: every rank.

    Raises:
        UserError: If it is no causal language model with the chat template's tokens.
        RunFailure: If the ranks don't see each other, or hold other weights.
    """
    model, tokenizer = load_model(model_dir, processes.device)
    rules = rule_reward(config.reward.rules)
    return PpoEngine(config, model, ChatTemplate.of(tokenizer), reward, rules, processes)
