"""FLOPs per trained token, by convention. A figure without its convention cannot be compared with another's.

All conventions count a multiply-add as two operations and the backward pass as twice the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pydantic

from kit.config import Config
from kit.errors import UserError


class ModelShape(Config):
    """The sizes that FLOPs depend on. `gated` is a SwiGLU-like MLP with three matrices instead of two."""

    layers: int = pydantic.Field(ge=1)
    hidden: int = pydantic.Field(ge=1)
    heads: int = pydantic.Field(ge=1)
    kv_heads: int = pydantic.Field(ge=1)
    head_dim: int = pydantic.Field(ge=1)
    ffn: int = pydantic.Field(ge=1)
    vocab: int = pydantic.Field(ge=1)
    sequence_length: int = pydantic.Field(ge=1)
    gated: bool = True
    tied: bool = False


def matrix_parameters(shape: ModelShape) -> int:
    """Returns the parameters of the layers' matrices: attention projections and MLP, without norms and embeddings."""
    queries = shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    attention = shape.hidden * (queries + 2 * keys) + queries * shape.hidden
    mlp = (3 if shape.gated else 2) * shape.hidden * shape.ffn
    return shape.layers * (attention + mlp)


def non_embedding_parameters(shape: ModelShape) -> int:
    """Returns all parameters but the input embedding and the output matrix: matrices and RMSNorm weights."""
    return matrix_parameters(shape) + (2 * shape.layers + 1) * shape.hidden


def parameter_count(shape: ModelShape) -> int:
    """Returns all parameters."""
    return non_embedding_parameters(shape) + (1 if shape.tied else 2) * shape.vocab * shape.hidden


def _six_n(shape: ModelShape) -> float:
    return 6.0 * non_embedding_parameters(shape)


def _palm(shape: ModelShape) -> float:
    # PaLM counts 6N + 12 L H Q T with N all parameters that are multiplied; the input embedding is a look-up.
    multiplied = non_embedding_parameters(shape) + shape.vocab * shape.hidden
    return 6.0 * multiplied + 12.0 * shape.layers * shape.heads * shape.head_dim * shape.sequence_length


def _megatron(shape: ModelShape) -> float:
    queries = shape.heads * shape.head_dim
    matrices = 6.0 * (matrix_parameters(shape) + shape.vocab * shape.hidden)
    return matrices + 12.0 * shape.layers * queries * shape.sequence_length


def _causal(shape: ModelShape) -> float:
    # A query sees on average (T + 1) / 2 keys; kernels that skip the masked half really do only this much.
    queries = shape.heads * shape.head_dim
    matrices = 6.0 * (matrix_parameters(shape) + shape.vocab * shape.hidden)
    return matrices + 6.0 * shape.layers * queries * (shape.sequence_length + 1)


class Convention(NamedTuple):
    """A way to count, with its source."""

    per_token: Callable[[ModelShape], float]
    words: str
    source: str


CONVENTIONS: dict[str, Convention] = {
    "kaplan_6n": Convention(
        _six_n, "6 x non-embedding parameters; no attention scores, no output matrix", "Kaplan et al. 2020, section 2.1"
    ),
    "palm": Convention(
        _palm,
        "6 x multiplied parameters (output matrix included) + 12 x layers x heads x head dim x sequence length",
        "Chowdhery et al. 2022, appendix B",
    ),
    "megatron": Convention(
        _megatron,
        "matrices of layers and output + full attention scores, forward and backward, no recomputation",
        "Narayanan et al. 2021, section 5.1, generalised to GQA and gated MLP",
    ),
    "causal": Convention(
        _causal, "as megatron, with only the unmasked half of the attention scores", "Dao 2023, section 4.1"
    ),
}
DEFAULT_CONVENTION = "megatron"


def flops_per_token(convention: str, shape: ModelShape) -> float:
    """Returns model FLOPs per trained token, forward and backward.

    Raises:
        UserError: If the convention has no entry in CONVENTIONS.
    """
    if convention not in CONVENTIONS:
        raise UserError(
            f"FLOPs convention {convention!r}",
            expected=f"one of: {', '.join(CONVENTIONS)}",
            action="choose one of them",
        )
    return CONVENTIONS[convention].per_token(shape)


def forward_flops_per_token(convention: str, shape: ModelShape) -> float:
    """Returns model FLOPs per token of a forward pass alone: a third, the backward pass being twice the forward one.

    Raises:
        UserError: As flops_per_token.
    """
    return flops_per_token(convention, shape) / 3


def mfu(tokens_per_second: float, flops_per_token: float, peak_flops_per_second: float) -> float:
    """Returns model FLOPs utilisation (Chowdhery et al. 2022, appendix B), 0 to 1, of the whole job's peak."""
    return tokens_per_second * flops_per_token / peak_flops_per_second
