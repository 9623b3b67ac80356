"""Causal attention on torch's fused kernel that knows the context axis: every rank sees all keys and values."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig


def zigzag(tensor: torch.Tensor, dim: int, degree: int, rank: int) -> torch.Tensor:
    """A context rank's share of a sequence: pieces r and 2n-1-r of 2n, so that causal attention costs all alike."""
    pieces = tensor.chunk(2 * degree, dim=dim)
    return torch.cat((pieces[rank], pieces[2 * degree - 1 - rank]), dim=dim)


def unzigzag(shares: list[torch.Tensor], dim: int) -> torch.Tensor:
    """The whole sequence from every context rank's share; undoes `zigzag`."""
    halves = [share.chunk(2, dim=dim) for share in shares]
    return torch.cat([first for first, _ in halves] + [last for _, last in reversed(halves)], dim=dim)


class GatherSequence(torch.autograd.Function):
    """All-gathers keys or values over the context axis; the gradient is summed and cut again."""

    @staticmethod
    def forward(ctx: Any, share: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        """share [length / degree, ...] in zigzag order -> [length, ...]. *Collective*: the context group."""
        ctx.group = group
        shares = [torch.empty_like(share) for _ in range(group.size())]
        dist.all_gather(shares, share.contiguous(), group=group)
        return unzigzag(shares, dim=0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of the share. *Collective*: the context group."""
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        return zigzag(gradient, 0, ctx.group.size(), ctx.group.rank()), None


def causal_rows(length: int, degree: int, rank: int, device: torch.device) -> torch.Tensor:
    """Which places [length] the tokens of a context rank may see: [length / degree, length], True where they may."""
    places = torch.arange(length, device=device)
    return zigzag(places, 0, degree, rank)[:, None] >= places[None]


def document_mask(documents: torch.Tensor, degree: int, rank: int) -> torch.Tensor:
    """Which tokens those of a context rank may see: of their own document, and not behind them.

    Args:
        documents: [batch, length], whole sequences; tokens of one document have one number.
        degree: Of context parallelism.
        rank: On the context axis.

    Returns:
        [batch, 1, length / degree, length], True where a token may look.
    """
    same = zigzag(documents, 1, degree, rank)[:, :, None] == documents[:, None, :]
    return (same & causal_rows(documents.shape[1], degree, rank, documents.device))[:, None]


class SdpaAttention(MegatronModule):
    """Causal attention on torch's fused kernel; under context parallelism every rank sees all keys and values.

    A mask that comes with the call takes the place of the causal one; it is torch's kind: truth values, True where a
    token may look, or what is added to the scores (megatron's own attention wants True where it may not look).
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.context_group = pg_collection.cp

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        """query [length, batch, heads, head_dim] (keys: KV heads) -> [length, batch, heads x head_dim]."""
        length, batch = query.shape[:2]
        mask = attention_mask
        if self.context_group.size() > 1:
            key, value = (GatherSequence.apply(t, self.context_group) for t in (key, value))
            if mask is None:
                mask = causal_rows(key.shape[0], self.context_group.size(), self.context_group.rank(), key.device)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        grouped = k.shape[1] != q.shape[1]
        if grouped and mask is not None and q.is_cuda:
            # Of CUDA's fused kernels the one that takes a mask takes no groups.
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
            grouped = False
        dropout = self.dropout if self.training else 0.0
        # Heads are cut over the tensor axis: its ranks must not drop the same. Under sequence parallelism megatron has
        # changed over to that generator around the whole layer.
        apart = dropout > 0 and not self.config.sequence_parallel
        with tensor_parallel.get_cuda_rng_tracker().fork() if apart else nullcontext():
            mixed = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=dropout,
                scale=self.scale,
                enable_gqa=grouped,
            )
        return mixed.permute(2, 0, 1, 3).reshape(length, batch, -1)
