"""PPO once more, written to be checked by eye: float64, one sample at a time, no padding, no cache, plain loops.

It shares nothing with `recipes.rlhf.ppo` but the definitions that are recipes' own: which random numbers a step gets
and which rows a mini-batch has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from recipes.rlhf.config import RlhfConfig


@dataclass
class Sample:
    """One prompt's way through a step."""

    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    old: list[float] = field(default_factory=list)
    old_values: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    ended: bool = False
    advantages: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


class Policy:
    """A model and a value head as plain tensors."""

    def __init__(self, model: Any, weight: torch.Tensor, bias: torch.Tensor, temperature: float) -> None:
        self.model, self.weight, self.bias, self.temperature = model, weight, bias, temperature

    def before(self, ids: Sequence[int]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The log-probabilities [vocab] of the next token, and the value, after every token."""
        output = self.model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
        logs, values = [], []
        for place in range(len(ids)):
            row = output.logits[0, place] / self.temperature
            top = row.detach().max()
            logs.append(row - (torch.log(torch.sum(torch.exp(row - top))) + top))
            values.append((output.hidden_states[-1][0, place] * self.weight[0]).sum() + self.bias[0])
        return logs, values


@torch.no_grad()
def answer(policy: Policy, prompt: list[int], draws: Sequence[float], stops: Sequence[int]) -> Sample:
    """Draws an answer token by token; every token costs a whole pass."""
    sample = Sample(prompt)
    for draw in draws:
        logs, values = policy.before(sample.prompt + sample.answer)
        cumulated, token = 0.0, -1
        while cumulated <= draw:
            token += 1
            cumulated += math.exp(logs[-1][token].item())
        sample.answer.append(token)
        sample.old.append(logs[-1][token].item())
        sample.old_values.append(values[-1].item())
        sample.entropies.append(-sum(math.exp(log) * log for log in logs[-1].tolist()))
        if token in stops:
            sample.ended = True
            break
    return sample


def mean_and_deviation(numbers: Sequence[float]) -> tuple[float, float]:
    mean = sum(numbers) / len(numbers)
    return mean, math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers) + 1e-8)


def teach(samples: list[Sample], scores: list[float], config: RlhfConfig, kl_coefficient: float) -> None:
    """Fills in advantages and returns."""
    ppo = config.ppo
    scores = [s - (0.0 if one.ended else ppo.missing_end_penalty) for s, one in zip(scores, samples, strict=True)]
    if ppo.whiten_rewards:
        mean, deviation = mean_and_deviation(scores)
        scores = [(score - mean) / deviation for score in scores]
    for sample, score in zip(samples, scores, strict=True):
        rewards = [-kl_coefficient * (p - q) for p, q in zip(sample.old, sample.reference, strict=True)]
        rewards[-1] += score
        last = len(rewards) - 1
        surprises = [
            rewards[t] + ppo.gamma * (sample.old_values[t + 1] if t < last else 0.0) - sample.old_values[t]
            for t in range(len(rewards))
        ]
        sample.advantages = [
            sum((ppo.gamma * ppo.lam) ** (later - t) * surprises[later] for later in range(t, len(rewards)))
            for t in range(len(rewards))
        ]
        sample.returns = [a + v for a, v in zip(sample.advantages, sample.old_values, strict=True)]
    if ppo.whiten_advantages:
        mean, deviation = mean_and_deviation([a for sample in samples for a in sample.advantages])
        for sample in samples:
            sample.advantages = [(a - mean) / deviation for a in sample.advantages]


@dataclass
class Losses:
    """The loss of a mini-batch, and sums over its tokens."""

    loss: torch.Tensor
    policy: float = 0.0
    value: float = 0.0
    policy_clips: int = 0
    value_clips: int = 0
    tokens: int = 0


def losses(policy: Policy, samples: Sequence[Sample], config: RlhfConfig) -> Losses:
    """Token by token, both clips as comparisons."""
    ppo, told = config.ppo, Losses(torch.zeros((), dtype=torch.float64))
    for sample in samples:
        logs, values = policy.before((sample.prompt + sample.answer)[:-1])
        for t, token in enumerate(sample.answer):
            place = len(sample.prompt) - 1 + t
            ratio = torch.exp(logs[place][token] - sample.old[t])
            near = min(max(ratio.item(), 1 - ppo.clip_policy), 1 + ppo.clip_policy)
            advantage = sample.advantages[t]
            # The pessimist's choice; the clipped one has no gradient.
            if -advantage * near > -advantage * ratio.item():
                policy_loss = torch.tensor(-advantage * near, dtype=torch.float64)
                told.policy_clips += 1
            else:
                policy_loss = -advantage * ratio
            before = sample.old_values[t]
            held = min(max(values[place].item(), before - ppo.clip_value), before + ppo.clip_value)
            if (held - sample.returns[t]) ** 2 > (values[place].item() - sample.returns[t]) ** 2:
                value_loss = torch.tensor(0.5 * (held - sample.returns[t]) ** 2, dtype=torch.float64)
                told.value_clips += 1
            else:
                value_loss = 0.5 * (values[place] - sample.returns[t]) ** 2
            entropy = -(torch.exp(logs[place]) * logs[place]).sum()
            told.loss = told.loss + policy_loss + ppo.value_coefficient * value_loss - ppo.entropy_coefficient * entropy
            told.policy += policy_loss.item()
            told.value += value_loss.item()
            told.tokens += 1
    told.loss = told.loss / told.tokens
    return told


class Reference:
    """A whole training, step by step."""

    def __init__(self, model: Any, frozen: Any, config: RlhfConfig, stops: Sequence[int]) -> None:
        width = model.config.hidden_size
        self.weight = torch.zeros(1, width, dtype=torch.float64, requires_grad=True)
        self.bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        temperature = config.generation.temperature
        self.policy = Policy(model, self.weight, self.bias, temperature)
        self.frozen = Policy(frozen, torch.zeros(1, width, dtype=torch.float64), torch.zeros(1), temperature)
        self.config, self.stops, self.kl_coefficient = config, stops, config.ppo.kl_coefficient
        self.parameters = [*model.parameters(), self.weight, self.bias]
        settings = config.optimizer
        decay = [{"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay}]
        rest = [{"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(decay + rest, betas=(settings.beta1, settings.beta2), eps=settings.eps)

    def roll_out(self, prompts: list[list[int]], draws: Any) -> list[Sample]:
        samples = [answer(self.policy, *two, self.stops) for two in zip(prompts, draws.tolist(), strict=True)]
        for sample in samples:
            with torch.no_grad():
                logs, _ = self.frozen.before((sample.prompt + sample.answer)[:-1])
            start = len(sample.prompt) - 1
            sample.reference = [logs[start + t][token].item() for t, token in enumerate(sample.answer)]
        return samples

    def step(
        self, samples: list[Sample], scores: list[float], rows: Callable[[int], list[list[int]]], rate: float
    ) -> dict[str, float]:
        teach(samples, scores, self.config, self.kl_coefficient)
        told: list[Losses] = []
        norms = []
        for epoch in range(self.config.ppo.epochs):
            for chosen in rows(epoch):
                self.optimizer.zero_grad()
                told.append(losses(self.policy, [samples[row] for row in chosen], self.config))
                told[-1].loss.backward()
                norm = math.sqrt(sum(p.grad.square().sum().item() for p in self.parameters if p.grad is not None))
                for parameter in self.parameters:
                    if parameter.grad is not None:
                        parameter.grad *= min(1.0, self.config.optimizer.clip_grad / (norm + 1e-6))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self.optimizer.step()
                norms.append(norm)
        return self._told(samples, told, norms)

    def _told(self, samples: list[Sample], told: list[Losses], norms: list[float]) -> dict[str, float]:
        tokens, answered = sum(one.tokens for one in told), sum(len(sample.answer) for sample in samples)
        kl = sum(p - q for sample in samples for p, q in zip(sample.old, sample.reference, strict=True))
        numbers = {
            "kl_nats_per_token": kl / answered,
            "kl_nats_per_answer": kl / len(samples),
            "kl_coefficient": self.kl_coefficient,
            "loss": sum(one.loss.item() * one.tokens for one in told) / tokens,
            "policy_loss": sum(one.policy for one in told) / tokens,
            "value_loss": sum(one.value for one in told) / tokens,
            "clip_fraction": sum(one.policy_clips for one in told) / tokens,
            "value_clip_fraction": sum(one.value_clips for one in told) / tokens,
            "entropy": sum(sum(sample.entropies) for sample in samples) / answered,
            "answer_tokens": answered / len(samples),
            "ended_fraction": sum(sample.ended for sample in samples) / len(samples),
            "grad_norm": sum(norms) / len(norms),
        }
        if self.config.ppo.target_kl is not None:
            error = numbers["kl_nats_per_answer"] / self.config.ppo.target_kl - 1
            self.kl_coefficient *= 1 + 0.1 * min(0.2, max(-0.2, error))
        return numbers
