"""Output matrix and cross entropy in one: the logits of a few tokens at a time, their gradient while they are there.

Whole logits are the largest tensor of a small model, [tokens, vocabulary] in fp32, and the usual way reads and writes
them about ten times. Here a block of them lives in one buffer, is turned into probabilities in place, and leaves only
the gradients of hidden states and matrix behind (the idea of Hsu et al. 2024, "Liger Kernel", section 3).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recipes.data import IGNORED

BLOCK_BYTES = 64 << 20
"""Of logits at a time."""


class LinearCrossEntropy(torch.autograd.Function):
    """Nats of every label, with the vocabulary cut over the tensor axis.

    The gradient is made in the forward pass, for losses that are all weighted alike; backward asserts that they are.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, matrix: Tensor, labels: Tensor, first: int, group: dist.ProcessGroup, wanted: bool
    ) -> Tensor:
        """hidden [tokens, hidden], matrix [vocabulary / tensor, hidden], labels [tokens] -> nats [tokens].

        Args:
            ctx: Of autograd.
            hidden, matrix: Of one dtype; the losses are fp32.
            labels: Whole token ids, or IGNORED: their loss and gradient are 0.
            first: The first token id of this rank's rows of the matrix.
            group: The tensor axis. *Collective*: it.
            wanted: Whether there will be a backward pass.
        """
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden) if wanted else None
        of_matrix: Tensor | None = None
        rows = max(1, BLOCK_BYTES // (4 * len(matrix)))
        buffer = hidden.new_empty((min(rows, len(hidden)), len(matrix)))
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            block = _Block(hidden[piece], matrix, labels[piece], first, group, buffer)
            losses[piece] = block.losses
            if of_hidden is not None:
                of_matrix = block.gradients(of_hidden[piece], of_matrix)
        ctx.counted = labels != IGNORED
        ctx.save_for_backward(of_hidden, of_matrix)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden (of this rank's part of the vocabulary: they are still to be added up) and matrix."""
        of_hidden, of_matrix = ctx.saved_tensors
        weights = gradients[0][ctx.counted]
        weight = float(weights[0]) if len(weights) else 0.0
        assert bool((weights == weight).all()), "every counted label must weigh alike"
        if weight != 1.0:
            of_hidden, of_matrix = of_hidden.mul_(weight), of_matrix.mul_(weight)
        return of_hidden, of_matrix, None, None, None, None


class _Block:
    """The logits of some tokens, from the first product to the last."""

    def __init__(
        self, hidden: Tensor, matrix: Tensor, labels: Tensor, first: int, group: dist.ProcessGroup, buffer: Tensor
    ) -> None:
        self._hidden, self._matrix = hidden, matrix
        logits = torch.mm(hidden, matrix.t(), out=buffer[: len(hidden)])
        counted = labels != IGNORED
        here = counted & (labels >= first) & (labels < first + len(matrix))
        self._targets = torch.where(here, labels - first, 0)
        column = logits[:, :1].clone()
        # In place: torch's kernel works row by row, and a row fits the cache.
        mine = torch.ops.aten._log_softmax.out(logits, 1, False, out=logits)
        sums = (column - mine[:, :1]).squeeze(1)  # log of the sum of this rank's exponentials
        target = mine.gather(1, self._targets.unsqueeze(1)).squeeze(1)
        whole = sums
        if group.size() > 1:
            whole, target = _over_ranks(sums, torch.where(here, target + sums, 0), group)
            target = target - whole
        self.losses = torch.where(counted, -target, 0.0)
        self._log_probabilities = mine
        self._scale = torch.where(counted, (sums - whole).exp(), 0.0).unsqueeze(1)
        self._here = here.to(hidden.dtype).unsqueeze(1)

    def gradients(self, of_hidden: Tensor, of_matrix: Tensor | None) -> Tensor:
        """Writes the gradient of these hidden states, and adds to that of the matrix, which it returns."""
        probabilities = self._log_probabilities.exp_()
        torch.mm(probabilities, self._matrix, out=of_hidden)
        of_hidden.mul_(self._scale).addcmul_(self._matrix[self._targets], self._here, value=-1)
        scaled = self._hidden * self._scale
        if of_matrix is None:
            of_matrix = torch.mm(probabilities.t(), scaled)
        else:
            of_matrix.addmm_(probabilities.t(), scaled)
        return of_matrix.index_add_(0, self._targets, self._hidden * self._here, alpha=-1)


def _over_ranks(sums: Tensor, target: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """Log sums over the whole vocabulary, and the logits of the targets, which one rank has and the others call 0."""
    highest = sums.clone()
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    both = torch.stack(((sums - highest).exp(), target))
    dist.all_reduce(both, group=group)
    return both[0].log() + highest, both[1]
