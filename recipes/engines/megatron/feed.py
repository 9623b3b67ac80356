"""What megatron's schedules draw and compute for every micro-batch: the pieces of a batch, the loss, the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from kit.layout import Layout
from recipes.data import IGNORED, Batch, join_batches
from recipes.engines.megatron.attention import document_mask, zigzag
from recipes.engines.sources import membership
from recipes.model.attention import document_positions

Feed = Iterator[dict[str, torch.Tensor]]


class Feeder:
    """Cuts batches into this rank's micro-batches.

    Args:
        layout: Degrees of parallelism.
        context_rank: Where this rank sits on the context axis; it gets its share of every sequence.
        device: Where the tensors go.
        dtype: What the model computes in.
        sources: How many sources the data are blended of; 0: losses aren't told by source.
    """

    def __init__(
        self, layout: Layout, context_rank: int, device: torch.device, dtype: torch.dtype, sources: int = 0
    ) -> None:
        self._layout, self._context_rank, self._device, self._sources = layout, context_rank, device, sources
        self._dtype = dtype

    def feed(self, batches: Sequence[Batch], micro: int) -> Feed:
        """The micro-batches of `micro` samples of all batches, in order."""
        whole = join_batches(batches)
        places = torch.arange(whole.tokens.shape[1]).expand(micro, -1)
        for batch in whole.pieces(micro):
            piece = {
                "tokens": self._share(torch.from_numpy(batch.tokens)),
                "labels": self._share(torch.from_numpy(batch.labels)),
                "positions": self._share(places[: len(batch.tokens)]),
            }
            if batch.documents is not None:
                documents = torch.from_numpy(batch.documents)
                piece["positions"] = self._share(document_positions(documents))
                piece["mask"] = self._mask(documents.to(self._device))
            if batch.sources is not None:
                piece["membership"] = membership(batch.sources, self._sources, self._device)
            yield piece

    def _mask(self, documents: torch.Tensor) -> torch.Tensor:
        """What is added to the scores: 0 where a token may look, else minus infinity.

        Of a mask of truth values every layer would make such a one for itself, and keep it for its backward pass.
        """
        seen = document_mask(documents, self._layout.context, self._context_rank)
        return torch.zeros(seen.shape, dtype=self._dtype, device=self._device).masked_fill_(~seen, -torch.inf)

    def _share(self, ids: torch.Tensor) -> torch.Tensor:
        whole = ids.to(self._device).contiguous()
        return whole if self._layout.context == 1 else zigzag(whole, 1, self._layout.context, self._context_rank)


def forward_loss(feed: Feed, chunk: Any) -> tuple[torch.Tensor, Callable[..., Any]]:
    """The next micro-batch through a chunk, and what makes its loss of the output."""
    piece = next(feed)
    output = chunk(piece["tokens"], piece["positions"], piece.get("mask"), labels=piece["labels"])
    return output, partial(_loss, piece["labels"] != IGNORED, piece.get("membership"))


def _loss(
    counted: torch.Tensor, membership: torch.Tensor | None, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """losses [micro batch, length] -> the sum of the counted ones, how many, and for the report both [2, 1 + sources].

    The first column of the report is of all samples, the others are of those of one source each.
    """
    kept = losses.float() * counted
    total = kept.sum()
    count = counted.sum(dtype=torch.int)
    report = torch.stack((total.detach(), count.float()))[:, None]
    if membership is not None:
        of_samples = torch.stack((kept.detach().sum(dim=1), counted.sum(dim=1).float()))
        report = torch.cat((report, of_samples @ membership.T), dim=1)
    return total, count, report


def forward_logits(feed: Feed, chunk: Any) -> tuple[torch.Tensor, Callable[..., Any]]:
    """The next micro-batch through a chunk, and what keeps its logits."""
    piece = next(feed)
    return chunk(piece["tokens"], piece["positions"], piece.get("mask")), _keep


def _keep(logits: torch.Tensor, non_loss_data: bool) -> torch.Tensor:
    return logits
