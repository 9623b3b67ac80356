"""Bytes that a forward pass keeps for its backward pass: Korthikanti et al. 2022, section 4, for other layers too.

Their formula s b h (34 + 5 a s / h) is of one kind of layer: LayerNorm, dropout, GELU, written-out attention scores,
two bytes an element. Here every term is counted from what the layer's operations keep, so that grouped-query
attention, gated MLPs, fused attention and fp32 follow the same way; `PUBLISHED` gives their formula back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kit.flops import ModelShape
from kit.layout import Layout


@dataclass(frozen=True)
class Kernels:
    """How a layer is computed, as far as it decides what is kept.

    Attributes:
        width: Bytes of an element that a matrix multiplication reads.
        norm: Bytes that a norm keeps for every element of its input, its output (the next matrix's input) included.
        mlp_tensors: FFN-wide tensors that the MLP keeps: GELU 2, SwiGLU 4 (gate, its SiLU, up, product).
        expanded_keys: Whether keys and values are copied to every query head of their group.
        scores: What attention keeps of its scores: everything with dropout ("written"), nothing because they are
            computed again ("recomputed"), or their log-sum-exp ("flash").
        mask: Bytes of an element of a dropout's mask, of which each layer has two besides that of the scores; 0: none.
    """

    width: int
    norm: int
    mlp_tensors: int
    expanded_keys: bool = False
    scores: Literal["written", "recomputed", "flash"] = "flash"
    mask: int = 0


PUBLISHED = Kernels(width=2, norm=4, mlp_tensors=2, scores="written", mask=1)
"""The layer of Korthikanti et al. 2022, section 4.1, and, with scores recomputed, of their section 5."""


def kernels_of(
    engine: str,
    device: str,
    precision: str,
    *,
    frozen: bool = False,
    masked: bool = False,
    gated: bool = True,
    dropout: bool = False,
) -> Kernels:
    """The kernels of one of this kit's engines, as counted with torch's saved-tensor hooks (see docs/planning.md).

    Args:
        engine: As the recipe's `engine`.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16", "fp16" or "fp8"; what fp8 keeps in a byte is counted as two.
        frozen: LoRA: matrices and norms that are not trained keep less.
        masked: Whether attention gets a mask, for which keys and values are expanded.
        gated: SwiGLU and RMSNorm (Llama); False: GELU and LayerNorm (GPT-2).
        dropout: Whether there is any; on the CPU attention's scores are then written out.
    """
    width = 4 if precision == "fp32" else 2
    # A fused norm keeps input and output; torch's composite RMSNorm on the CPU also the normalised input.
    norm = 3 * width if device == "cpu" and gated else 2 * width
    mlp = 4 if gated else 2
    if engine == "megatron" and gated:
        # Fused on CUDA and, in fp32, on the CPU: both halves and the product. Otherwise SwiGLU adds an offset of 0 to
        # the linear half, which makes one more tensor.
        fused = device == "cuda" or precision == "fp32"
        norm, mlp = (2 * width, 3) if fused else (norm, 5)
    if engine != "accelerate":
        scores: Literal["written", "flash"] = "written" if dropout and device == "cpu" else "flash"
        mask = width if device == "cpu" else 1  # on the CPU the noise itself is kept
        return Kernels(width, norm, mlp_tensors=mlp, expanded_keys=True, scores=scores, mask=mask if dropout else 0)
    # transformers writes its RMSNorm out, in fp32; under autocast the stream stays fp32 and matrices read a bf16 copy.
    norm = 3 * 4 if width == 4 else 3 * 4 + 2
    kernels = Kernels(width, norm, mlp_tensors=4, expanded_keys=masked)
    return replace(kernels, norm=norm - 4) if frozen else kernels


def layer_bytes_per_token(
    shape: ModelShape, kernels: Kernels, tensor: int = 1, *, sequence_parallel: bool = False
) -> float:
    """Bytes kept by one layer for one token, on one tensor-parallel rank.

    Korthikanti et al. 2022, equations 1, 2 and 4.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    whole = 2.0 * kernels.norm * shape.hidden + 2 * kernels.mask * shape.hidden
    seen = queries if kernels.expanded_keys else keys
    # Queries, keys, values, and the mixture that the output projection reads.
    split = kernels.width * (2.0 * queries + 2 * seen) + kernels.mlp_tensors * kernels.width * shape.ffn
    if kernels.scores == "written":
        split += (2 * kernels.width + kernels.mask) * shape.heads * shape.sequence_length
    elif kernels.scores == "flash":
        split += 4 * shape.heads
    return (whole / tensor if sequence_parallel else whole) + split / tensor


def layers_in_flight(layers: int, layout: Layout, micro_batches: int, stage: int = 0) -> float:
    """How many layers' activations a pipeline stage holds at once, summed over micro-batches.

    1F1B holds at most (pipeline - stage) micro-batches; interleaved, stage 0 holds L (1 + (p - 1) / (p m)) layers
    (Korthikanti et al. 2022, section 4.2.3; Narayanan et al. 2021, section 2.2).
    """
    pipeline, chunks = layout.pipeline, layout.interleave
    if chunks == 1:
        return layers / pipeline * min(pipeline - stage, micro_batches)
    held = 2 * (pipeline - stage - 1) + (chunks - 1) * pipeline + 1
    return layers / (pipeline * chunks) * min(held, micro_batches * chunks)


def activation_bytes(
    shape: ModelShape,
    kernels: Kernels,
    layout: Layout,
    micro_samples: int,
    micro_batches: int,
    stage: int = 0,
    recompute: str = "none",
) -> float:
    """Bytes of activations that one rank of a pipeline stage keeps, without embedding and logits.

    Args:
        shape: The model.
        kernels: How a layer is computed.
        layout: Degrees of parallelism.
        micro_samples: Samples of a micro-batch.
        micro_batches: Of one rank in one optimizer step.
        stage: On the pipeline axis.
        recompute: full: layers keep their input alone, and one of them is there whole while it is computed again
            (Korthikanti et al. 2022, section 5). selective: scores and expanded keys are not kept.
    """
    tokens = micro_samples * shape.sequence_length / layout.context
    if recompute == "selective":
        kernels = replace(kernels, scores="recomputed", expanded_keys=False)
    layer = layer_bytes_per_token(shape, kernels, layout.tensor, sequence_parallel=layout.sequence)
    layers = layers_in_flight(shape.layers, layout, micro_batches, stage)
    if recompute != "full":
        return tokens * layer * layers
    entry = kernels.width * shape.hidden / (layout.tensor if layout.sequence else 1)
    return tokens * (entry * layers + layer)
