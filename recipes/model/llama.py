"""The plain Llama in torch, with Hugging Face's names (Touvron et al. 2023, section 2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.model.attention import attend, document_mask, document_positions, heads_of
from recipes.model.config import ModelConfig


def rotary_tables(length: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head_dim] in fp32, halves repeated (not interleaved).

    Su et al. 2021, "RoFormer", section 3.2.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / base**exponents)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Applies rotary positions to x [batch, heads, length, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines.to(x.dtype) + torch.cat((-second, first), dim=-1) * sines.to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dropout = config.heads, config.kv_heads, config.dropout
        kv = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv, bias=False)
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, mask: Tensor | None) -> Tensor:
        """x [batch, length, hidden] -> the same shape."""
        query = rotate(heads_of(self.q_proj(x), self.heads), cosines, sines)
        key = rotate(heads_of(self.k_proj(x), self.kv_heads), cosines, sines)
        value = heads_of(self.v_proj(x), self.kv_heads)
        return self.o_proj(attend(query, key, value, mask, self.dropout if self.training else 0.0))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, "GLU Variants Improve Transformer", section 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: both halves read a normalised stream and add to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = nn.RMSNorm(config.hidden, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, mask: Tensor | None) -> Tensor:
        """x [batch, length, hidden] -> the same shape."""
        mixed = self.self_attn(self.input_layernorm(x), cosines, sines, mask)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class LlamaDecoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rope_base, self.head_dim, self.dropout = config.rope_base, config.head_dim, config.dropout
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, eps=config.norm_eps)

    def forward(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        """tokens, documents [batch, length] -> [batch, length, hidden]."""
        cosines, sines = rotary_tables(tokens.shape[1], self.head_dim, self.rope_base, tokens.device)
        mask = None
        if documents is not None:
            mask, positions = document_mask(documents), document_positions(documents)
            cosines, sines = cosines[positions][:, None], sines[positions][:, None]
        x = F.dropout(self.embed_tokens(tokens), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, cosines, sines, mask)
        return self.norm(x)
