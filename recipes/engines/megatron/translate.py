"""Megatron's words for a recipe: sizes, layout, precision, what is computed again."""

from __future__ import annotations

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.transformer.transformer_config import TransformerConfig

from recipes.model.config import ModelConfig
from recipes.training.config import TrainingConfig


def transformer_config(config: TrainingConfig, model: ModelConfig, dtype: torch.dtype) -> TransformerConfig:
    """Megatron's words for the recipe's model and layout."""
    layout = config.layout
    translated = TransformerConfig(
        num_layers=model.layers,
        hidden_size=model.hidden,
        num_attention_heads=model.heads,
        num_query_groups=model.kv_heads,
        ffn_hidden_size=model.ffn,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_eps,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=layout.interleave if layout.interleave > 1 else None,
        context_parallel_size=layout.context,
        sequence_parallel=layout.sequence,
        # Of two stages each is the other's neighbour on both sides: messages that are sent as one batch would be
        # taken for one another, so interleaved stages send one by one.
        overlap_p2p_comm=layout.interleave > 1,
        batch_p2p_comm=layout.interleave == 1,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
        calculate_per_token_loss=True,
        init_method_std=model.init_std,
    )
    translated.finalize_model_grads_func = finalize_model_grads
    return translated
