"""What megatron's schedules draw and compute for every micro-batch: the pieces of a batch, the loss, the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from kit.layout import Layout
from recipes.data import IGNORED, Batch, Ids
from recipes.engines.megatron.attention import zigzag

Feed = Iterator[dict[str, torch.Tensor]]


class Feeder:
    """Cuts batches into this rank's micro-batches.

    Args:
        layout: Degrees of parallelism.
        context_rank: Where this rank sits on the context axis; it gets its share of every sequence.
        device: Where the tensors go.
    """

    def __init__(self, layout: Layout, context_rank: int, device: torch.device) -> None:
        self._layout, self._context_rank, self._device = layout, context_rank, device

    def feed(self, batches: Sequence[Batch], micro: int) -> Feed:
        """The micro-batches of `micro` samples of all batches, in order."""
        tokens = np.concatenate([batch.tokens for batch in batches])
        labels = np.concatenate([batch.labels for batch in batches])
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        for start in range(0, len(tokens), micro):
            piece = slice(start, start + micro)
            yield {
                "tokens": self._share(tokens[piece]),
                "labels": self._share(labels[piece]),
                "positions": self._share(positions[piece]),
            }

    def _share(self, ids: Ids) -> torch.Tensor:
        whole = torch.from_numpy(np.array(ids)).to(self._device)
        if self._layout.context == 1:
            return whole
        return zigzag(whole, 1, self._layout.context, self._context_rank)


def forward_loss(feed: Feed, chunk: Any) -> tuple[torch.Tensor, Callable[..., Any]]:
    """The next micro-batch through a chunk, and what makes its loss of the output."""
    piece = next(feed)
    # The cross entropy over a cut vocabulary wants real token ids everywhere; what doesn't count is left out after it.
    output = chunk(piece["tokens"], piece["positions"], None, labels=piece["labels"].clamp(min=0))
    return output, partial(_loss, piece["labels"] != IGNORED)


def _loss(counted: torch.Tensor, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """losses [micro batch, length] -> the sum of the counted ones, how many, and both for the report."""
    total = (losses.float() * counted).sum()
    count = counted.sum(dtype=torch.int)
    return total, count, torch.stack((total.detach(), count.float()))


def forward_logits(feed: Feed, chunk: Any) -> tuple[torch.Tensor, Callable[..., Any]]:
    """The next micro-batch through a chunk, and what keeps its logits."""
    piece = next(feed)
    return chunk(piece["tokens"], piece["positions"], None), _keep


def _keep(logits: torch.Tensor, non_loss_data: bool) -> torch.Tensor:
    return logits
