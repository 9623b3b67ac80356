"""The size and shape of a model. Torch-free, so that a laptop can plan with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kit.config import Config
from kit.errors import UserError
from kit.flops import ModelShape
from recipes.model.tensors import SHAPES

ROPE_BASE = 10000.0


class ModelConfig(Config):
    """A decoder of one of two families.

    llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases. Touvron et al. 2023, "LLaMA: Open and
    Efficient Foundation Language Models", section 2.2.
    gpt2: LayerNorm, a table of learned positions, plain attention, GELU, biases everywhere, tied unless said otherwise;
    `kv_heads` and `ffn` needn't be given (heads, and four times hidden). Radford et al. 2019, section 2.3.
    """

    family: Literal["llama", "gpt2"] = "llama"
    layers: int = Field(ge=1)
    hidden: int = Field(ge=8)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    ffn: int = Field(ge=8)
    vocab: int | None = Field(default=None, ge=2, description="empty: the tokenizer's")
    rope_base: float = Field(default=ROPE_BASE, gt=0)
    positions: int | None = Field(
        default=None, ge=8, description="gpt2: rows of the table of positions; empty: data.sequence_length"
    )
    norm_eps: float = Field(default=1e-5, gt=0)
    tied: bool = Field(default=False, description="the output projection is the embedding matrix")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="of embeddings, attention and what joins the residual stream"
    )
    init_std: float = Field(default=0.02, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _of_the_family(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("family") != "gpt2":
            return data
        filled: dict[str, Any] = {"tied": True}
        if isinstance(data.get("heads"), int):
            filled["kv_heads"] = data["heads"]
        if isinstance(data.get("hidden"), int):
            filled["ffn"] = 4 * data["hidden"]
        # `--set model.kv_heads=null` takes away what the recipe says, too.
        return data | {key: value for key, value in filled.items() if data.get(key) is None}

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} over heads {self.heads} must be a whole number")
        if self.family == "llama" and self.head_dim % 2:
            raise ValueError(f"hidden {self.hidden} over heads {self.heads} must be an even whole number")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @model_validator(mode="after")
    def _family_has_it(self) -> ModelConfig:
        if self.family == "llama" and self.positions is not None:
            raise ValueError("positions is for family gpt2: llama's are rotary and need no table; leave it out")
        if self.family == "gpt2" and self.kv_heads != self.heads:
            raise ValueError(
                f"family gpt2 has keys for every head: kv_heads {self.kv_heads} must be heads {self.heads}; "
                "leave kv_heads out, or set family=llama"
            )
        if self.family == "gpt2" and self.rope_base != ROPE_BASE:
            raise ValueError("rope_base is for family llama: gpt2 learns its positions; leave it out")
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

    @property
    def position_rows(self) -> int:
        """Rows of gpt2's table of positions, known once `with_vocab` has been called."""
        assert self.positions is not None, "call with_vocab with the sequence length first"
        return self.positions

    def with_vocab(self, vocab: int, sequence_length: int | None = None) -> ModelConfig:
        """The same model with its vocabulary, and gpt2's table of positions, filled in; what is stated wins.

        Args:
            vocab: The tokenizer's.
            sequence_length: Longest sequence it will see.

        Raises:
            UserError: If the stated table of positions is shorter than the sequences.
        """
        if self.positions is not None and sequence_length is not None and self.positions < sequence_length:
            raise UserError(
                f"model.positions is {self.positions}, and data.sequence_length is {sequence_length}",
                expected="a row for every position",
                action="leave model.positions out, or set data.sequence_length lower",
            )
        filled: dict[str, int | None] = {"vocab": vocab} if self.vocab is None else {}
        if self.family == "gpt2" and self.positions is None:
            filled["positions"] = sequence_length
        return self.model_copy(update=filled)

    def shape(self, sequence_length: int) -> ModelShape:
        """What the FLOPs conventions need to know."""
        gpt2 = self.family == "gpt2"
        return ModelShape(
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            ffn=self.ffn,
            vocab=self.vocab_size,
            sequence_length=sequence_length,
            gated=not gpt2,
            tied=self.tied,
            biased=gpt2,
            positions=(self.positions or sequence_length) if gpt2 else 0,
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model by its Hugging Face name, in the order in which files list them."""
        return SHAPES[self.family](self)
