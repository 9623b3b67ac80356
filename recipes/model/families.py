"""What differs between families of models in a Hugging Face directory: config.json, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    write = {"llama": _llama_config, "gpt2": _gpt2_config}[config.family]
    return write(config, sequence_length) | {
        "vocab_size": config.vocab_size,
        "initializer_range": config.init_std,
        "torch_dtype": "float32",
        "dtype": "float32",
        "tie_word_embeddings": config.tied,
        "bos_token_id": ids.eod,
        "eos_token_id": ids.eod,
        "pad_token_id": ids.pad,
        "use_cache": True,
    }


def _llama_config(config: ModelConfig, sequence_length: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sequence_length,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        # Readers before transformers 5 look for these two names.
        "rope_theta": config.rope_base,
        "attention_bias": False,
        "mlp_bias": False,
        # transformers' Llama has no other dropout, so this one stands for all of them.
        "attention_dropout": config.dropout,
    }


def _gpt2_config(config: ModelConfig, sequence_length: int) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": config.hidden,
        "n_inner": config.ffn,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_positions": config.positions or sequence_length,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }


def model_config(directory: Path, *, exact: bool = True) -> ModelConfig:
    """The model that a directory's config.json describes.

    Args:
        directory: A Hugging Face directory.
        exact: Whether it must be the very function that our modules compute, or only its sizes matter.

    Raises:
        UserError: If config.json is missing, is of another family, or of a variant that we don't compute.
    """
    path = require_file(directory / "config.json", "the config.json of a Hugging Face model")
    data = _read(path)
    family = data.get("model_type")
    if family not in FAMILIES:
        raise UserError(
            f"{path}: model_type {family!r}",
            expected=f"a model of a family that is known here: {', '.join(FAMILIES)}",
            action="choose a model of such a family",
        )
    read, plain = FAMILIES[family]
    try:
        model = read(data)
    except (KeyError, TypeError, ValueError) as error:  # pydantic's refusals are ValueErrors
        words = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path}: {words}",
            expected=f"the sizes of a {family} model",
            action="copy the directory again from where it comes from",
        ) from None
    if exact:
        _check_plain(path, data, plain | {"head_dim": (model.head_dim, None)})
    return model


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: {error}",
            expected="the JSON object of a Hugging Face model",
            action="copy the directory again from where it comes from",
        ) from None


def _check_plain(path: Path, data: Mapping[str, Any], plain: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses what would make another function of the same weights; `plain` has the values that are right."""
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    stated = dict(data) | {"rope_type": rope.get("rope_type", rope.get("type", "default"))}
    plain = dict(plain) | {"rope_type": ("default",)}
    wrong = [key for key, values in plain.items() if key in stated and stated[key] not in values]
    if wrong:
        raise UserError(
            f"{path}: " + ", ".join(f"{key} {stated[key]!r}" for key in wrong),
            expected=", ".join(f"{key} {plain[key][0]!r}" for key in wrong),
            action=f"choose a plain {data['model_type']} model, or fine-tune this one with stage sft",
        )


LLAMA_PLAIN: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish"),
}


def _llama_model(data: Mapping[str, Any]) -> ModelConfig:
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
        dropout=data.get("attention_dropout") or 0.0,
        init_std=data.get("initializer_range", 0.02),
    )


GPT2_PLAIN: dict[str, tuple[Any, ...]] = {
    # Three names of GELU by its tanh approximation.
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "add_cross_attention": (False, None),
}


def _gpt2_model(data: Mapping[str, Any]) -> ModelConfig:
    hidden, heads = data["n_embd"], data["n_head"]
    return ModelConfig(
        family="gpt2",
        layers=data["n_layer"],
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        ffn=data.get("n_inner") or 4 * hidden,
        vocab=data["vocab_size"],
        positions=data["n_positions"],
        norm_eps=data.get("layer_norm_epsilon", 1e-5),
        tied=data.get("tie_word_embeddings", True),
        dropout=data.get("resid_pdrop", 0.1),
        init_std=data.get("initializer_range", 0.02),
    )


FAMILIES = {"llama": (_llama_model, LLAMA_PLAIN), "gpt2": (_gpt2_model, GPT2_PLAIN)}
