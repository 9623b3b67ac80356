"""What PPO trains: a causal language model with a value head."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


class PolicyWithValue(nn.Module):
    """A policy and its value function: one linear head on the policy's last hidden states (Ziegler et al. 2019).

    The two share the transformer: one pass gives both, also while answers are sampled. The head begins at zero, so
    that at first nothing is expected of any state.

    Args:
        model: A Hugging Face causal language model; also the attribute under which it can be had back.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        weight = model.get_output_embeddings().weight
        self.value_head = nn.Linear(weight.shape[1], 1, dtype=weight.dtype, device=weight.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, ids: Tensor, mask: Tensor, answer_tokens: int) -> tuple[Tensor, Tensor]:
        """Logits [samples, answer_tokens, vocab] and values [samples, answer_tokens] before each answer token.

        Args:
            ids: [samples, length]: prompts padded on the left, then answers padded on the right.
            mask: Which of them aren't padding.
            answer_tokens: How many columns at the end are answers.
        """
        logits, hidden, _ = run_model(self.model, ids[:, :-1], mask[:, :-1], keep=answer_tokens)
        return full_precision(logits), self._values(hidden)

    def step(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Tensor, Any]:
        """One step of decoding: the next token's logits [rows, vocab], the values [rows] before it, the new cache.

        Args:
            ids: [rows, new tokens], the prompts at first.
            mask: Of everything so far, [rows, length].
            cache: What the last step returned; None at first.
        """
        logits, hidden, cache = run_model(self.model, ids, mask, keep=1, cache=cache, use_cache=True)
        return full_precision(logits[:, 0]), self._values(hidden)[:, 0], cache

    def _values(self, hidden: Tensor) -> Tensor:
        return full_precision(self.value_head(hidden.to(self.value_head.weight.dtype))[..., 0])


def answer_logits(model: Any, ids: Tensor, mask: Tensor, answer_tokens: int) -> Tensor:
    """A bare model's logits before each answer token; see `PolicyWithValue.forward`."""
    return full_precision(run_model(model, ids[:, :-1], mask[:, :-1], keep=answer_tokens)[0])


def run_model(
    model: Any, ids: Tensor, mask: Tensor, *, keep: int, cache: Any = None, use_cache: bool = False
) -> tuple[Tensor, Tensor, Any]:
    """Logits and last hidden states of the last `keep` places, and the cache. Positions count from the first token."""
    places = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    fewer = {"logits_to_keep": keep} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    output = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=places,
        past_key_values=cache,
        use_cache=use_cache,
        output_hidden_states=True,
        **fewer,
    )
    return output.logits[:, -keep:], output.hidden_states[-1][:, -keep:], output.past_key_values


def full_precision(tensor: Tensor) -> Tensor:
    """fp32 at least: log-probabilities in bf16 would have errors as large as a policy's change in a step."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
