"""The layers of a model: megatron's local specification with a norm and an attention that know every axis.

Its own norm refuses sequence parallelism and its own attention refuses context parallelism and writes the scores out.
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


def use_transformer_engine() -> bool:
    """Whether this machine has CUDA and Transformer Engine."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def layer_spec(config: TransformerConfig, vp_stage: int | None) -> Any:
    """The specification of one pipeline chunk's layers."""
    if use_transformer_engine():
        return get_gpt_layer_with_transformer_engine_spec()
    spec = get_gpt_layer_local_spec(normalization=config.normalization)
    parts = spec.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = RmsNorm
    parts.self_attention.submodules.core_attention = SdpaAttention
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=RmsNorm)


class RmsNorm(torch.nn.RMSNorm):
    """RMSNorm whose weight is marked for megatron's gradient reduction under sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **ignored: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel
