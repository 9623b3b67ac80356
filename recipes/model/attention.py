"""What the plain models of all families share: causal attention, which may keep to each token's own document."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def document_positions(documents: Tensor) -> Tensor:
    """documents [batch, length] -> every token's place in its own document, counted from 0."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def document_mask(documents: Tensor) -> Tensor:
    """documents [batch, length] -> [batch, 1, length, length], whether a token (row) sees another (column)."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (causal & (documents[:, :, None] == documents[:, None, :]))[:, None]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """query [batch, heads, length, head_dim], fewer heads for keys and values -> [batch, length, heads x head_dim].

    Groups of queries share keys (Ainslie et al. 2023, "GQA", section 2). Without a mask attention is causal.
    """
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """x [batch, length, heads x head_dim] -> [batch, heads, length, head_dim]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
