"""The loss of a step by the source of its samples, where the data are a blend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from recipes.data import IGNORED, Batch, Ids
from recipes.training.config import TokenDataConfig, TrainingConfig


def source_names(config: TrainingConfig) -> list[str]:
    """The sources of a recipe's blend, as `Batch.sources` counts them; none where the data are one dataset."""
    return list(config.data.blend) if isinstance(config.data, TokenDataConfig) else []


def membership(sources: Ids, count: int, device: torch.device) -> torch.Tensor:
    """[samples] -> [count, samples], 1 where a sample is of a source and 0 elsewhere."""
    return F.one_hot(torch.from_numpy(sources), count).T.float().to(device)


@torch.no_grad()
def tally(batch: Batch, logits: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Nats and counted labels by source [2, count] of a batch of known sources; logits [samples, length, vocab]."""
    assert batch.sources is not None
    losses = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none")
    of_samples = torch.stack((losses.view_as(labels).sum(dim=1), (labels != IGNORED).sum(dim=1).float()))
    return of_samples @ membership(batch.sources, count, labels.device).T


def source_losses(names: Sequence[str], sums: Sequence[float], counts: Sequence[float]) -> dict[str, float]:
    """What a step's record says: mean nats per counted token of every source that has any in the step.

    Args:
        names: The sources.
        sums, counts: Nats and counted labels by source, over the whole job; empty for a batch of unknown sources.
    """
    there = zip(names[: len(sums)], sums, counts, strict=True)
    return {f"loss_{name}": nats / count for name, nats, count in there if count}
