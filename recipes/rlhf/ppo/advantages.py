"""From scores to advantages. Everything is [samples, answer tokens], right-padded, with a mask of what counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[float], float]
"""Sums a number over the ranks. *Collective*."""


def last_places(mask: Tensor) -> Tensor:
    """The place [samples] of every row's last token that counts."""
    return mask.long().sum(1) - 1


def penalised_rewards(
    scores: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor, kl_coefficient: float
) -> Tensor:
    """The reward of every token: the KL penalty everywhere, and the score [samples] on the answer's last token.

    The penalty is the coefficient times log p(token) - log p_reference(token) of the sampled token, whose mean under
    the policy is the KL divergence (Ziegler et al. 2019, section 2.1; Ouyang et al. 2022, section 3.5).
    """
    rewards = torch.where(mask, -kl_coefficient * (log_probs - reference), 0.0)
    rows = torch.arange(len(rewards), device=rewards.device)
    rewards[rows, last_places(mask)] += scores
    return rewards


def whitened(values: Tensor, mask: Tensor, total: Total) -> Tensor:
    """Values with mean 0 and variance 1 over everything that counts on all ranks. *Collective*.

    Values that are all alike become 0.
    """
    count = total(float(mask.sum()))
    mean = total(_masked_sum(values, mask)) / count
    variance = total(_masked_sum((values - mean).square(), mask)) / count
    return torch.where(mask, (values - mean) / (variance + 1e-8) ** 0.5, 0.0)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of every token (Schulman et al. 2016, equation 16). An answer's end is worth 0.

    `values` are what the value head said before each token.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for place in reversed(range(rewards.shape[1])):
        inside = mask[:, place]
        surprise = rewards[:, place] + gamma * next_value - values[:, place]
        following = torch.where(inside, surprise + gamma * lam * following, 0.0)
        next_value = torch.where(inside, values[:, place], 0.0)
        advantages[:, place] = following
    return advantages, torch.where(mask, advantages + values, 0.0)


def steered_coefficient(coefficient: float, kl: float, target: float) -> float:
    """The KL coefficient after a step: up to 2 % up or down, towards the target (Ziegler et al. 2019, section 2.2)."""
    error = max(-0.2, min(0.2, kl / target - 1))
    return coefficient * (1 + 0.1 * error)


def _masked_sum(values: Tensor, mask: Tensor) -> float:
    return float(torch.where(mask, values, 0.0).double().sum())
