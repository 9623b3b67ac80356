"""What differs between families of models in a Hugging Face directory: config.json, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from kit.errors import UserError
from kit.files import require_file
from recipes.model.config import ModelConfig


class SpecialIds(NamedTuple):
    """Token ids that a model directory names. Documents end with `eod`, so it also begins a text."""

    eod: int
    pad: int


def hugging_face_config(config: ModelConfig, sequence_length: int, ids: SpecialIds) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sequence_length,
        "initializer_range": config.init_std,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        # Readers before transformers 5 look for these two names.
        "rope_theta": config.rope_base,
        "torch_dtype": "float32",
        "dtype": "float32",
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids.eod,
        "eos_token_id": ids.eod,
        "pad_token_id": ids.pad,
        "use_cache": True,
    }


def model_config(directory: Path) -> ModelConfig:
    """The model that a directory's config.json describes.

    Raises:
        UserError: If it is missing or describes another family.
    """
    path = require_file(directory / "config.json", "the config.json of a Hugging Face model")
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("model_type") != "llama" or data.get("attention_bias") or data.get("mlp_bias"):
        raise UserError(
            f"{path}: model_type {data.get('model_type')!r}",
            expected="a Llama model without biases",
            action="choose a model of that family",
        )
    base = (data.get("rope_parameters") or {}).get("rope_theta") or data.get("rope_theta", 10000.0)
    return ModelConfig(
        layers=data["num_hidden_layers"],
        hidden=data["hidden_size"],
        heads=data["num_attention_heads"],
        kv_heads=data.get("num_key_value_heads", data["num_attention_heads"]),
        ffn=data["intermediate_size"],
        vocab=data["vocab_size"],
        rope_base=base,
        norm_eps=data["rms_norm_eps"],
        tied=data.get("tie_word_embeddings", False),
        init_std=data.get("initializer_range", 0.02),
    )
