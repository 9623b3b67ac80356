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


def _qkv_rule(model: ModelConfig, names: tuple[str, ...]) -> Rule:
    """Megatron keeps, for every group of heads that share keys: its queries, its keys, its values."""
    hidden, head_dim, queries = model.hidden, model.head_dim, model.heads // model.kv_heads

    def split(whole: Tensors, degree: int) -> Tensors:
        query, key, value = (t.view(model.kv_heads, -1, head_dim, hidden) for t in whole)
        packed = torch.cat((query, key, value), dim=1)
        return [piece.reshape(-1, hidden) for piece in packed.chunk(degree, dim=0)]

    def join(slices: Tensors) -> Tensors:
        packed = torch.cat(slices, dim=0).view(model.kv_heads, queries + 2, head_dim, hidden)
        parts = packed.split((queries, 1, 1), dim=1)
        return [part.reshape(-1, hidden) for part in parts]

    return Rule(names, split, join)


def layer_rules(model: ModelConfig, layer: int) -> dict[str, Rule]:
    """The rules of one layer (global number from 0) by the parameter's name within the layer.

    Transformer Engine fuses a norm into the matrix after it; both names of such a norm are here.
    """
    prefix = f"model.layers.{layer}."

    def norm(name: str) -> Rule:
        return Rule((prefix + name,), _split_copies, _join_copies)

    attention = tuple(f"{prefix}self_attn.{part}_proj.weight" for part in "qkv")
    gated = (prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight")
    return {
        "input_layernorm.weight": norm("input_layernorm.weight"),
        "self_attention.linear_qkv.layer_norm_weight": norm("input_layernorm.weight"),
        "self_attention.linear_qkv.weight": _qkv_rule(model, attention),
        "self_attention.linear_proj.weight": Rule((prefix + "self_attn.o_proj.weight",), _split_columns, _join_columns),
        "pre_mlp_layernorm.weight": norm("post_attention_layernorm.weight"),
        "mlp.linear_fc1.layer_norm_weight": norm("post_attention_layernorm.weight"),
        "mlp.linear_fc1.weight": Rule(gated, _split_gated, _join_gated),
        "mlp.linear_fc2.weight": Rule((prefix + "mlp.down_proj.weight",), _split_columns, _join_columns),
    }


def outer_rules(model: ModelConfig) -> dict[str, Rule]:
    """The rules of what lies outside the layers, by the parameter's full name.

    With tied weights the last pipeline stage keeps a copy of the embedding as its output matrix.
    """
    output = "model.embed_tokens.weight" if model.tied else "lm_head.weight"
    return {
        "embedding.word_embeddings.weight": Rule(("model.embed_tokens.weight",), _split_rows, _join_rows),
        "decoder.final_layernorm.weight": Rule(("model.norm.weight",), _split_copies, _join_copies),
        "output_layer.weight": Rule((output,), _split_rows, _join_rows),
    }


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
    order: list[tuple[tuple[str, ...], int]] = [(("model.embed_tokens.weight",), 0)]
    layers_per_chunk = model.layers // (pipeline * interleave)
    for layer in range(model.layers):
        names = dict.fromkeys(rule.canonical for rule in layer_rules(model, layer).values())
        order += [(group, layer // layers_per_chunk % pipeline) for group in names]
    order.append((("model.norm.weight",), pipeline - 1))
    if not model.tied:
        order.append((("lm_head.weight",), pipeline - 1))
    return order
