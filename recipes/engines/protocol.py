"""What the training loop asks of an engine. Every engine is an adapter with these methods and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from recipes.data import Batch, Ids


class StepResult(NamedTuple):
    """One optimizer step over the whole job; the same on every rank.

    loss is the mean nats per counted token before the step, grad_norm the norm before clipping, tokens how many tokens
    the step consumed where that differs from step to step, extra further numbers for the step's record, skipped
    whether the optimizer left the step out because the gate said so.
    """

    loss: float
    grad_norm: float
    tokens: int | None = None
    extra: Mapping[str, float] = {}
    skipped: bool = False


Gate = Callable[[float, float], bool]
"""Asked with (loss, gradient norm before clipping), the same on every rank, before the optimizer moves anything; False:
the step is left out, and weights, moments and the optimizer's own step count stay as they are."""


class Engine(Protocol):
    """Owns the model and the optimizer of one rank. Canonical names and shapes are Hugging Face's, whole."""

    name: str
    data_rank: int
    data_degree: int

    def load_weights(self, whole: Callable[[str], torch.Tensor]) -> None:
        """Sets every local parameter from whole canonical tensors, which `whole` makes or reads by name.

        *Collective*: every rank.
        """
        ...

    def stream_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Whole canonical tensors, fp32 on the CPU, one after another in file order.

        *Collective*: every rank iterates to the end. Only rank 0's tensors hold values.
        """
        ...

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """One optimizer step on this data rank's batch. *Collective*: every rank."""
        ...

    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Mean nats per token over the data ranks' batches, without training. *Collective*: every rank."""
        ...

    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """Whole logits [samples, length, vocab] in fp32 on the CPU of rank 0, None elsewhere.

        *Collective*: every rank, with the same tokens.
        """
        ...

    def save_state(self, folder: Path) -> Callable[[], None] | None:
        """Writes weights and optimizer into an existing empty folder. *Collective*: every rank.

        None: they are written. Else a function that writes what has been copied: called once, in another thread; it
        holds no collective and looks at no live tensor (`recipes.checkpoint.writing.Writing` says more).
        """
        ...

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote, bit for bit in the same layout. *Collective*: every rank."""
        ...
