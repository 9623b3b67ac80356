"""What the engines minimise: nats over the counted labels of the whole job, divided by how many those are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from kit.errors import RunFailure
from recipes.data import IGNORED, Batch
from recipes.distributed.processes import Processes


def loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """logits [samples, length, vocab], labels [samples, length] -> nats summed over the labels that count."""
    flat = logits.flatten(0, 1).float()
    return F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def count_labels(batches: Sequence[Batch], processes: Processes) -> float:
    """Labels that count, over the batches of all ranks; every rank is a data rank. *Collective*: every rank.

    Raises:
        RunFailure: If there is none.
    """
    count = processes.total(sum(int((batch.labels != IGNORED).sum()) for batch in batches))
    check_count(count)
    return count


def check_count(count: float) -> None:
    """Refuses a global batch from which nothing can be learnt; its mean would be 0 / 0.

    Raises:
        RunFailure: If no label of it counts.
    """
    if not count:
        raise RunFailure(
            "no label of a global batch counts towards the loss",
            expected="at least one",
            action="look at the data: answers may be empty, or cut off by data.sequence_length",
        )


def micro_batches(batch: Batch, samples: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels, `samples` at a time, on the device."""
    for start in range(0, len(batch.tokens), samples):
        piece = slice(start, start + samples)
        yield torch.from_numpy(batch.tokens[piece]).to(device), torch.from_numpy(batch.labels[piece]).to(device)
