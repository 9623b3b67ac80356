"""The layers of a model: megatron's local specification with norms and an attention that know every axis.

Its own norms refuse sequence parallelism and its own attention refuses context parallelism and writes the scores out.
With Transformer Engine installed on CUDA, that library's layers are used instead.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from recipes.engines.megatron.attention import SdpaAttention
from recipes.engines.megatron.fused import GatedMlp, RotarySelfAttention, is_plain
from recipes.engines.megatron.kernels import RmsNormFunction


def use_transformer_engine() -> bool:
    """Whether this machine has CUDA and Transformer Engine."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def layer_spec(config: TransformerConfig, vp_stage: int | None, *, masked: bool = False) -> Any:
    """The specification of one pipeline chunk's layers.

    Args:
        config: Megatron's words for the model.
        vp_stage: The chunk's number on its stage, where the stages are interleaved.
        masked: Whether attention gets a mask of documents: then it's ours beside Transformer Engine's other layers.
    """
    if use_transformer_engine():
        spec = get_gpt_layer_with_transformer_engine_spec()
        if masked:
            spec.submodules.self_attention.submodules.core_attention = SdpaAttention
        return spec
    norm = NORMS[config.normalization]
    spec = get_gpt_layer_local_spec(normalization=config.normalization)
    parts = spec.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = norm
    parts.self_attention.submodules.core_attention = SdpaAttention
    if config.gated_linear_unit:
        # The Llama family's have kernels of ours.
        parts.self_attention.module, parts.mlp = RotarySelfAttention, GatedMlp
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=norm)


class RmsNorm(torch.nn.RMSNorm):
    """RMSNorm whose weight is marked for megatron's gradient reduction under sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **ignored: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel
        self._epsilon = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., hidden] -> the same shape."""
        if not is_plain(x):
            return super().forward(x)
        normed: torch.Tensor = RmsNormFunction.apply(x, self.weight, self._epsilon)
        return normed


class LayerNorm(torch.nn.LayerNorm):
    """LayerNorm whose weight and bias are marked alike."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **ignored: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = self.bias.sequence_parallel = config.sequence_parallel


NORMS = {"RMSNorm": RmsNorm, "LayerNorm": LayerNorm}
