"""Bytes of parameters, gradients and optimizer state: Rajbhandari et al. 2020, "ZeRO", sections 3.1 and 5."""

from __future__ import annotations

from typing import NamedTuple

from kit.flops import ModelShape, matrix_parameters


class StateBytes(NamedTuple):
    """Bytes of one rank."""

    parameters: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three."""
        return self.parameters + self.gradients + self.optimizer


def zero_states(
    parameters: float,
    ranks: int,
    stage: int,
    *,
    parameter_bytes: int = 2,
    gradient_bytes: int = 2,
    optimizer_bytes: int = 12,
) -> StateBytes:
    """ZeRO's model states (figure 1 and table 1): stage 1 divides the optimizer's state, 2 gradients, 3 parameters.

    Args:
        parameters: How many the model has.
        ranks: Data-parallel ranks.
        stage: 0 to 3.
        parameter_bytes: Of one parameter; 2 in mixed precision.
        gradient_bytes: Of one gradient.
        optimizer_bytes: The paper's K: 12 for Adam in mixed precision (fp32 copy, two moments).
    """
    return StateBytes(
        parameters * parameter_bytes / (ranks if stage >= 3 else 1),
        parameters * gradient_bytes / (ranks if stage >= 2 else 1),
        parameters * optimizer_bytes / (ranks if stage >= 1 else 1),
    )


def megatron_parameters(shape: ModelShape, tensor: int, pipeline: int, stage: int) -> float:
    """Parameters of one rank of a pipeline stage: matrices are cut over the tensor axis, norms are not.

    The first stage has the embeddings and the last the output matrix; tied, both hold the one matrix where they differ.
    Of biases those before a sum over the tensor axis are whole, and so is the table of positions.
    """
    table = shape.vocab * shape.hidden / tensor
    norm = shape.hidden * (2 if shape.biased else 1)
    keys = shape.kv_heads * shape.head_dim
    cut = shape.heads * shape.head_dim + 2 * keys + (2 if shape.gated else 1) * shape.ffn
    biases = shape.layers * (cut / tensor + 2 * shape.hidden) if shape.biased else 0
    layers = (matrix_parameters(shape) / tensor + biases + 2 * norm * shape.layers) / pipeline
    first, last = stage == 0, stage == pipeline - 1
    tables = 1 if shape.tied and pipeline == 1 else int(first) + int(last)
    positions = shape.positions * shape.hidden if first else 0
    return layers + tables * table + positions + (norm if last else 0)


def megatron_states(parameters: float, ranks: int, *, distributed: bool, precision: str) -> StateBytes:
    """Megatron's states: gradients always in an fp32 buffer; `distributed` cuts the optimizer's over `ranks`.

    In bf16 and fp16 18 bytes a parameter in all (Narayanan et al. 2021; 2 + 4 + 12), in fp32 16. In fp8 Transformer
    Engine keeps two more copies of the weights, for the product and for its gradient, a byte each.
    """
    mixed = precision != "fp32"
    width = {"fp32": 4, "fp8": 4}.get(precision, 2)
    return zero_states(
        parameters,
        ranks,
        1 if distributed else 0,
        parameter_bytes=width,
        gradient_bytes=4,
        optimizer_bytes=12 if mixed else 8,
    )


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Trained parameters of LoRA on every linear layer but the output: rank x (inputs + outputs) of each matrix.

    Hu et al. 2021, section 4.1.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys)
    mlp = (3 if shape.gated else 2) * (shape.hidden + shape.ffn)
    return shape.layers * rank * (attention + mlp)


def cache_bytes_per_token(shape: ModelShape, width: int) -> float:
    """Keys and values of every layer for one token that has been generated or read."""
    return 2.0 * shape.layers * shape.kv_heads * shape.head_dim * width
