"""The plain reference model of either family, one process, no parallelism. Its state-dict names are Hugging Face's.

It's what the engines are compared with; it isn't tuned for speed.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from recipes.model.config import ModelConfig
from recipes.model.gpt2 import Gpt2Decoder
from recipes.model.llama import LlamaDecoder


class Gpt(nn.Module):
    """The whole model; weights are left as torch draws them (see recipes.model.init)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.family == "gpt2":
            self.transformer = Gpt2Decoder(config)
        else:
            self.model = LlamaDecoder(config)
        self.gpt2 = config.family == "gpt2"
        self.lm_head = None if config.tied else nn.Linear(config.hidden, config.vocab_size, bias=False)

    @property
    def output(self) -> nn.Module:
        """The module whose weight makes logits of the hidden states."""
        if self.lm_head is not None:
            return self.lm_head
        return self.transformer.wte if self.gpt2 else self.model.embed_tokens

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits [batch, length, vocab] of tokens [batch, length].

        Args:
            tokens: Ids.
            documents: [batch, length], which document every token belongs to: it sees that one alone, and positions
                count from its beginning. None: a row is one text.
        """
        hidden = (self.transformer if self.gpt2 else self.model)(tokens, documents)
        weight = self.output.weight
        assert isinstance(weight, Tensor)
        return F.linear(hidden, weight)
