"""The losses of PPO, token by token: [samples, answer tokens]. Whoever sums them knows which tokens count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the tokens [samples, length] under logits [samples, length, vocab] at the temperature."""
    logits = logits / temperature
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def token_entropies(logits: Tensor, temperature: float) -> Tensor:
    """The entropy in nats of what the next token may be, at every place."""
    log_probs = F.log_softmax(logits / temperature, dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate with its sign turned (Schulman et al. 2017, equation 7), and where the clip decides."""
    ratios = (log_probs - old).exp()
    free = -advantages * ratios
    clipped = -advantages * ratios.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, clipped), clipped > free


def value_losses(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the squared error, of the value or of its clipped move, whichever is worse; and where the clip decides.

    The clip is that of Schulman et al. 2017's own programs; the paper doesn't mention it.
    """
    free = (values - returns).square()
    clipped = (values.clamp(old - clip, old + clip) - returns).square()
    return 0.5 * torch.maximum(free, clipped), clipped > free
