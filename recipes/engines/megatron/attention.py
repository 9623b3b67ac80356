"""Causal attention on torch's fused kernel that knows the context axis: every rank sees all keys and values."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
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


class SdpaAttention(MegatronModule):
    """Causal attention on torch's fused kernel; under context parallelism every rank sees all keys and values."""

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
        mask = None
        if self.context_group.size() > 1:
            key, value = (GatherSequence.apply(t, self.context_group) for t in (key, value))
            mask = self._causal_mask(key.shape[0], query.device)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        if k.shape[1] != q.shape[1]:
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=self.scale
        )
        return mixed.permute(2, 0, 1, 3).reshape(length, batch, -1)

    def _causal_mask(self, length: int, device: torch.device) -> torch.Tensor:
        places = torch.arange(length, device=device)
        mine = zigzag(places, 0, self.context_group.size(), self.context_group.rank())
        return mine[:, None] >= places[None]
