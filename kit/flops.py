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
    """The sizes that FLOPs and parameters depend on.

    `gated` is a SwiGLU-like MLP with three matrices instead of two, `biased` a bias beside every matrix of the layers
    and every norm, `positions` the rows of a table of learned positions (0: none).
    """

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
    biased: bool = False
    positions: int = pydantic.Field(default=0, ge=0)


def matrix_parameters(shape: ModelShape) -> int:
    """Returns the parameters of the layers' matrices: attention projections and MLP, without norms and embeddings."""
    queries = shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    attention = shape.hidden * (queries + 2 * keys) + queries * shape.hidden
    mlp = (3 if shape.gated else 2) * shape.hidden * shape.ffn
    return shape.layers * (attention + mlp)


def non_embedding_parameters(shape: ModelShape) -> int:
    """Returns all parameters but embeddings, positions and the output matrix: matrices, biases and norms."""
    norms = (2 * shape.layers + 1) * shape.hidden
    if not shape.biased:
        return matrix_parameters(shape) + norms
    keys = shape.kv_heads * shape.head_dim
    attention = shape.heads * shape.head_dim + 2 * keys + shape.hidden
    mlp = (2 if shape.gated else 1) * shape.ffn + shape.hidden
    return matrix_parameters(shape) + 2 * norms + shape.layers * (attention + mlp)


def embedding_parameters(shape: ModelShape) -> int:
    """Returns what `non_embedding_parameters` leaves out: token and position embeddings and the output matrix."""
    return ((1 if shape.tied else 2) * shape.vocab + shape.positions) * shape.hidden


def parameter_count(shape: ModelShape) -> int:
    """Returns all parameters."""
    return non_embedding_parameters(shape) + embedding_parameters(shape)


def _six_n(shape: ModelShape) -> float:
    return 6.0 * non_embedding_parameters(shape)


def _output(shape: ModelShape) -> float:
    return 6.0 * shape.vocab * shape.hidden


def _palm(shape: ModelShape) -> float:
    # PaLM counts 6N + 12 L H Q T with N all parameters that are multiplied; the input embedding is a look-up.
    return 6.0 * (non_embedding_parameters(shape) + shape.vocab * shape.hidden) + _full_scores(shape)


def _megatron(shape: ModelShape) -> float:
    return 6.0 * (matrix_parameters(shape) + shape.vocab * shape.hidden) + _full_scores(shape)


def _causal(shape: ModelShape) -> float:
    return 6.0 * (matrix_parameters(shape) + shape.vocab * shape.hidden) + _causal_scores(shape)


def _full_scores(shape: ModelShape) -> float:
    return 12.0 * shape.layers * shape.heads * shape.head_dim * shape.sequence_length


def _causal_scores(shape: ModelShape) -> float:
    # A query sees on average (T + 1) / 2 keys; kernels that skip the masked half really do only this much.
    return 6.0 * shape.layers * shape.heads * shape.head_dim * (shape.sequence_length + 1)


def _not_counted(shape: ModelShape) -> float:
    return 0.0


class Convention(NamedTuple):
    """A way to count, with its source; `scores` (of attention) and `output` (the output matrix) are parts of it."""

    per_token: Callable[[ModelShape], float]
    words: str
    source: str
    scores: Callable[[ModelShape], float] = _full_scores
    output: Callable[[ModelShape], float] = _output


CONVENTIONS: dict[str, Convention] = {
    "kaplan_6n": Convention(
        _six_n,
        "6 x non-embedding parameters; no attention scores, no output matrix",
        "Kaplan et al. 2020, section 2.1",
        scores=_not_counted,
        output=_not_counted,
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
        _causal,
        "as megatron, with only the unmasked half of the attention scores",
        "Dao 2023, section 4.1",
        scores=_causal_scores,
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


def hardware_flops_per_token(convention: str, shape: ModelShape, recompute: str) -> float:
    """Returns FLOPs per trained token with those that are done twice to save memory (Korthikanti et al. 2022).

    Full recomputation does the forward pass of all layers once more, selective recomputation that of the attention
    scores; each as far as the convention counts it at all. Model FLOPs over time give MFU, these give HFU.

    Args:
        convention: As in `flops_per_token`.
        shape: Of the model.
        recompute: "none", "selective" or "full", as in a recipe.

    Raises:
        UserError: As flops_per_token.
    """
    model, counted = flops_per_token(convention, shape), CONVENTIONS[convention]
    again = {"none": 0.0, "selective": counted.scores(shape), "full": model - counted.output(shape)}
    # The backward pass is twice the forward pass, so the forward pass is a third of each.
    return model + again[recompute] / 3


def mfu(tokens_per_second: float, flops_per_token: float, peak_flops_per_second: float) -> float:
    """Returns model FLOPs utilisation (Chowdhery et al. 2022, appendix B), 0 to 1, of the whole job's peak."""
    return tokens_per_second * flops_per_token / peak_flops_per_second
