"""One table between canonical (Hugging Face) tensors and megatron's local parameters, used both ways.

Initialisation and import read it from left to right (whole tensors -> this rank's slice), export from right to left.
Layers go by their global number, so pipeline stages and interleaved chunks need no renaming.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from recipes.model.config import ModelConfig

Tensors = list[torch.Tensor]


class Rule(NamedTuple):
    """How some canonical tensors and one megatron parameter correspond.

    split: whole canonical tensors, tensor degree -> every tensor rank's slice. join: the way back.
    """

    canonical: tuple[str, ...]
    split: Callable[[Tensors, int], Tensors]
    join: Callable[[Tensors], Tensors]


def _split_rows(whole: Tensors, degree: int) -> Tensors:
    return list(whole[0].chunk(degree, dim=0))


def _join_rows(slices: Tensors) -> Tensors:
    return [torch.cat(slices, dim=0)]


def _split_columns(whole: Tensors, degree: int) -> Tensors:
    return list(whole[0].chunk(degree, dim=1))


def _join_columns(slices: Tensors) -> Tensors:
    return [torch.cat(slices, dim=1)]


def _split_copies(whole: Tensors, degree: int) -> Tensors:
    return [whole[0]] * degree


def _join_copies(slices: Tensors) -> Tensors:
    return [slices[0]]


def _split_gated(whole: Tensors, degree: int) -> Tensors:
    gates, ups = (matrix.chunk(degree, dim=0) for matrix in whole)
    return [torch.cat(pair, dim=0) for pair in zip(gates, ups, strict=True)]


def _join_gated(slices: Tensors) -> Tensors:
    gates, ups = zip(*(piece.chunk(2, dim=0) for piece in slices), strict=True)
    return [torch.cat(gates, dim=0), torch.cat(ups, dim=0)]


def _transposed(rule: Rule) -> Rule:
    """The same for one matrix that the files keep as [in, out]."""
    return Rule(
        rule.canonical,
        lambda whole, degree: rule.split([whole[0].t()], degree),
        lambda slices: [matrix.t() for matrix in rule.join(slices)],
    )


def _copies(name: str) -> Rule:
    return Rule((name,), _split_copies, _join_copies)


def _rows(name: str) -> Rule:
    return Rule((name,), _split_rows, _join_rows)


def _columns(name: str) -> Rule:
    return Rule((name,), _split_columns, _join_columns)


def _qkv_rule(model: ModelConfig, names: tuple[str, ...]) -> Rule:
    """Megatron keeps, for every group of heads that share keys: its queries, its keys, its values.

    The canonical side is three matrices [out, in], or one tensor with all three below one another; biases have no `in`.
    """
    head_dim, queries = model.head_dim, model.heads // model.kv_heads
    sizes = [model.heads * head_dim, model.kv_heads * head_dim, model.kv_heads * head_dim]

    def split(whole: Tensors, degree: int) -> Tensors:
        parts = whole if len(whole) == 3 else list(whole[0].split(sizes, dim=0))
        inner = parts[0].shape[1:]
        packed = torch.cat([part.reshape(model.kv_heads, -1, head_dim, *inner) for part in parts], dim=1)
        return [piece.reshape(-1, *inner) for piece in packed.chunk(degree, dim=0)]

    def join(slices: Tensors) -> Tensors:
        whole = torch.cat(slices, dim=0)
        packed = whole.view(model.kv_heads, queries + 2, head_dim, *whole.shape[1:])
        parts = [part.reshape(-1, *whole.shape[1:]) for part in packed.split((queries, 1, 1), dim=1)]
        return parts if len(names) == 3 else [torch.cat(parts, dim=0)]

    return Rule(names, split, join)


def layer_rules(model: ModelConfig, layer: int) -> dict[str, Rule]:
    """The rules of one layer (global number from 0) by the parameter's name within the layer.

    Transformer Engine fuses a norm into the matrix after it; both names of such a norm are here.
    """
    return (_gpt2_layer if model.family == "gpt2" else _llama_layer)(model, layer)


def _llama_layer(model: ModelConfig, layer: int) -> dict[str, Rule]:
    prefix = f"model.layers.{layer}."
    attention = tuple(f"{prefix}self_attn.{part}_proj.weight" for part in "qkv")
    gated = (prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight")
    return {
        "input_layernorm.weight": _copies(prefix + "input_layernorm.weight"),
        "self_attention.linear_qkv.layer_norm_weight": _copies(prefix + "input_layernorm.weight"),
        "self_attention.linear_qkv.weight": _qkv_rule(model, attention),
        "self_attention.linear_proj.weight": _columns(prefix + "self_attn.o_proj.weight"),
        "pre_mlp_layernorm.weight": _copies(prefix + "post_attention_layernorm.weight"),
        "mlp.linear_fc1.layer_norm_weight": _copies(prefix + "post_attention_layernorm.weight"),
        "mlp.linear_fc1.weight": Rule(gated, _split_gated, _join_gated),
        "mlp.linear_fc2.weight": _columns(prefix + "mlp.down_proj.weight"),
    }


def _norm(plain: str, fused: str, canonical: str) -> dict[str, Rule]:
    rules = {}
    for kind in ("weight", "bias"):
        rules[f"{plain}.{kind}"] = rules[f"{fused}.layer_norm_{kind}"] = _copies(f"{canonical}.{kind}")
    return rules


def _gpt2_layer(model: ModelConfig, layer: int) -> dict[str, Rule]:
    prefix = f"transformer.h.{layer}."
    return {
        **_norm("input_layernorm", "self_attention.linear_qkv", prefix + "ln_1"),
        "self_attention.linear_qkv.weight": _transposed(_qkv_rule(model, (prefix + "attn.c_attn.weight",))),
        "self_attention.linear_qkv.bias": _qkv_rule(model, (prefix + "attn.c_attn.bias",)),
        "self_attention.linear_proj.weight": _transposed(_columns(prefix + "attn.c_proj.weight")),
        "self_attention.linear_proj.bias": _copies(prefix + "attn.c_proj.bias"),
        **_norm("pre_mlp_layernorm", "mlp.linear_fc1", prefix + "ln_2"),
        "mlp.linear_fc1.weight": _transposed(_rows(prefix + "mlp.c_fc.weight")),
        "mlp.linear_fc1.bias": _rows(prefix + "mlp.c_fc.bias"),
        "mlp.linear_fc2.weight": _transposed(_columns(prefix + "mlp.c_proj.weight")),
        "mlp.linear_fc2.bias": _copies(prefix + "mlp.c_proj.bias"),
    }


def outer_rules(model: ModelConfig) -> dict[str, Rule]:
    """The rules of what lies outside the layers, by the parameter's full name.

    With tied weights the last pipeline stage keeps a copy of the embedding as its output matrix.
    """
    if model.family == "gpt2":
        embedding = "transformer.wte.weight"
        rules = {
            "embedding.word_embeddings.weight": _rows(embedding),
            "embedding.position_embeddings.weight": _copies("transformer.wpe.weight"),
            "decoder.final_layernorm.weight": _copies("transformer.ln_f.weight"),
            "decoder.final_layernorm.bias": _copies("transformer.ln_f.bias"),
        }
    else:
        embedding = "model.embed_tokens.weight"
        rules = {
            "embedding.word_embeddings.weight": _rows(embedding),
            "decoder.final_layernorm.weight": _copies("model.norm.weight"),
        }
    return rules | {"output_layer.weight": _rows(embedding if model.tied else "lm_head.weight")}


def chunk_rules(model: ModelConfig, chunk: torch.nn.Module, first_layer: int) -> dict[str, Rule]:
    """The rule of every parameter of a pipeline chunk, by its name in that chunk.

    `first_layer` is the global number of the chunk's first layer; megatron's own `layer_number` isn't asked.
    """
    outer = outer_rules(model)
    rules: dict[str, Rule] = {}
    for name, _ in chunk.named_parameters():
        if name.startswith("decoder.layers."):
            local, inner = name.removeprefix("decoder.layers.").split(".", 1)
            rules[name] = layer_rules(model, first_layer + int(local))[inner]
        else:
            rules[name] = outer[name]
    return rules


def export_order(model: ModelConfig, pipeline: int, interleave: int) -> list[tuple[tuple[str, ...], int]]:
    """Every rule's canonical tensors once, in file order, with the pipeline stage that holds them.

    Interleaved chunks go round the stages, so a stage's layers needn't be neighbours.
    """
    outer = outer_rules(model)
    order = [(rule.canonical, 0) for name, rule in outer.items() if name.startswith("embedding.")]
    layers_per_chunk = model.layers // (pipeline * interleave)
    for layer in range(model.layers):
        names = dict.fromkeys(rule.canonical for rule in layer_rules(model, layer).values())
        order += [(group, layer // layers_per_chunk % pipeline) for group in names]
    last = [rule.canonical for name, rule in outer.items() if not name.startswith("embedding.")]
    held_before = {group for group, _ in order}
    return order + [(group, pipeline - 1) for group in last if group not in held_before]
