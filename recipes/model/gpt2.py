"""The plain GPT-2 in torch, with Hugging Face's names (Radford et al. 2019, section 2.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.model.attention import attend, document_mask, document_positions, heads_of
from recipes.model.config import ModelConfig


class Conv1D(nn.Module):
    """A linear layer whose matrix is kept as [in, out], as the files of GPT-2 have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.02)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    """Causal attention, every head with keys of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.c_attn = Conv1D(config.hidden, 3 * config.hidden)
        self.c_proj = Conv1D(config.hidden, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [batch, length, hidden] -> the same shape."""
        query, key, value = (heads_of(part, self.heads) for part in self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(attend(query, key, value, mask, self.dropout if self.training else 0.0))


class FeedForward(nn.Module):
    """Two matrices around GELU by its tanh approximation (Hendrycks and Gimpel 2016, section 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.hidden, config.ffn)
        self.c_proj = Conv1D(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> the same shape."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """One layer: both halves read a normalised stream and add to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [batch, length, hidden] -> the same shape."""
        x = x + F.dropout(self.attn(self.ln_1(x), mask), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class Gpt2Decoder(nn.Module):
    """Embeddings of tokens and positions, layers and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.wte = nn.Embedding(config.vocab_size, config.hidden)
        self.wpe = nn.Embedding(config.position_rows, config.hidden)
        self.h = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.hidden, eps=config.norm_eps)

    def forward(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        """tokens, documents [batch, length] -> [batch, length, hidden]."""
        mask, positions = None, torch.arange(tokens.shape[1], device=tokens.device)
        if documents is not None:
            mask, positions = document_mask(documents), document_positions(documents)
        x = F.dropout(self.wte(tokens) + self.wpe(positions), self.dropout, self.training)
        for layer in self.h:
            x = layer(x, mask)
        return self.ln_f(x)
