"""The size and shape of a model. Torch-free, so that a laptop can plan with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kit.config import Config
from kit.flops import ModelShape


class ModelConfig(Config):
    """A decoder of the Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

    Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2.
    """

    family: Literal["llama"] = "llama"
    layers: int = Field(ge=1)
    hidden: int = Field(ge=8)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    ffn: int = Field(ge=8)
    vocab: int | None = Field(default=None, ge=2, description="empty: the tokenizer's")
    rope_base: float = Field(default=10000.0, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)
    tied: bool = Field(default=False, description="the output projection is the embedding matrix")
    init_std: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(f"hidden {self.hidden} over heads {self.heads} must be an even whole number")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden // self.heads

    @property
    def vocab_size(self) -> int:
        """The vocabulary, which is known once `with_vocab` has been called."""
        assert self.vocab is not None, "call with_vocab first"
        return self.vocab

    def with_vocab(self, vocab: int) -> ModelConfig:
        """The same model with its vocabulary filled in; a stated vocabulary wins."""
        return self if self.vocab is not None else self.model_copy(update={"vocab": vocab})

    def shape(self, sequence_length: int) -> ModelShape:
        """What the FLOPs conventions need to know."""
        return ModelShape(
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            ffn=self.ffn,
            vocab=self.vocab_size,
            sequence_length=sequence_length,
            gated=True,
            tied=self.tied,
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model by its Hugging Face name, in the order in which files list them."""
        kv = self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            shapes |= {
                prefix + "input_layernorm.weight": (self.hidden,),
                prefix + "self_attn.q_proj.weight": (self.hidden, self.hidden),
                prefix + "self_attn.k_proj.weight": (kv, self.hidden),
                prefix + "self_attn.v_proj.weight": (kv, self.hidden),
                prefix + "self_attn.o_proj.weight": (self.hidden, self.hidden),
                prefix + "post_attention_layernorm.weight": (self.hidden,),
                prefix + "mlp.gate_proj.weight": (self.ffn, self.hidden),
                prefix + "mlp.up_proj.weight": (self.ffn, self.hidden),
                prefix + "mlp.down_proj.weight": (self.hidden, self.ffn),
            }
        shapes["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden)
        return shapes
