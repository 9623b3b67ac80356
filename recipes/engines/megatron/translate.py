"""Megatron's words for a recipe: family, sizes, layout, precision, what is computed again."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.transformer.transformer_config import TransformerConfig

from kit.layout import Layout
from recipes.engines.megatron import cuda
from recipes.model.config import ModelConfig
from recipes.training.config import TrainingConfig

POSITIONS = {"llama": "rope", "gpt2": "learned_absolute"}
"""How each family knows where a token stands."""

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "activation_func": torch.nn.functional.silu,
        "add_bias_linear": False,
    },
    "gpt2": {
        "normalization": "LayerNorm",
        "gated_linear_unit": False,
        "activation_func": partial(torch.nn.functional.gelu, approximate="tanh"),
        "add_bias_linear": True,
    },
}

RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    # Korthikanti et al. (2022), section 5: the core of attention alone.
    "selective": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
    "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
}


def transformer_config(config: TrainingConfig, model: ModelConfig, dtype: torch.dtype) -> TransformerConfig:
    """Megatron's words for the recipe's model, layout and precision."""
    translated = TransformerConfig(
        num_layers=model.layers,
        hidden_size=model.hidden,
        num_attention_heads=model.heads,
        num_query_groups=model.kv_heads,
        ffn_hidden_size=model.ffn,
        layernorm_epsilon=model.norm_eps,
        hidden_dropout=model.dropout,
        attention_dropout=model.dropout,
        use_cpu_initialization=not torch.cuda.is_available(),
        calculate_per_token_loss=True,
        init_method_std=model.init_std,
        **(FAMILIES[model.family] | cuda.transformer_settings(config, model)),
        **RECOMPUTE[config.recompute],
        **_layout(config.layout),
        **_precision(config.precision, dtype),
    )
    translated.finalize_model_grads_func = finalize_model_grads
    return translated


def _layout(layout: Layout) -> dict[str, Any]:
    return {
        "tensor_model_parallel_size": layout.tensor,
        "pipeline_model_parallel_size": layout.pipeline,
        "virtual_pipeline_model_parallel_size": layout.interleave if layout.interleave > 1 else None,
        "context_parallel_size": layout.context,
        "sequence_parallel": layout.sequence,
        # Of two stages each is the other's neighbour on both sides: messages that are sent as one batch would be
        # taken for one another, so interleaved stages send one by one.
        "overlap_p2p_comm": layout.interleave > 1,
        "batch_p2p_comm": layout.interleave == 1,
    }


def _precision(precision: str, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        # e4m3 forward, e5m2 backward (Micikevicius et al. 2022, section 3); matrices alone, the rest is bf16.
        "fp8": "hybrid" if precision == "fp8" else None,
    }
