"""Megatron's modules with the kernels of this folder in the places that cost most on a CPU.

Each takes the fast way where it computes the same thing, and megatron's own way everywhere else: other precisions,
masks, context parallelism, dropout, CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from recipes.engines.megatron.head import LinearCrossEntropy
from recipes.engines.megatron.kernels import RotaryAttentionFunction, SwiGluFunction

Output = tuple[Tensor, Tensor | None]


def is_plain(tensor: Tensor) -> bool:
    """Whether the kernels of this folder are for such a tensor: fp32 on a CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


class GatedMlp(MLP):
    """The MLP of the Llama family.

    It names its parts itself, so that a specification may be the class: megatron doesn't know its name in a ModuleSpec.
    """

    def __init__(self, config: TransformerConfig, **named: Any) -> None:
        parts = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
        super().__init__(config, submodules=parts, **named)

    def forward(self, hidden_states: Tensor, *arguments: Any, **named: Any) -> Output:
        """hidden_states [length, batch, hidden] -> the same shape, and no bias."""
        if not is_plain(hidden_states) or arguments or any(value is not None for value in named.values()):
            output: Output = super().forward(hidden_states, *arguments, **named)
            return output
        both, _ = self.linear_fc1(hidden_states)
        projected: Output = self.linear_fc2(SwiGluFunction.apply(both))
        return projected


class RotaryTables:
    """Cosines and sines of megatron's angles, which are one and the same tensor in every layer and every step."""

    def __init__(self) -> None:
        self._angles: Tensor | None = None
        self._tables: tuple[Tensor, Tensor] | None = None

    def of(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """angles [length, 1, 1, head_dim], both halves alike -> two of [length, head_dim / 2]."""
        if self._tables is None or self._angles is not angles:
            half = angles[:, 0, 0, : angles.shape[-1] // 2]
            self._angles, self._tables = angles, (half.cos(), half.sin())
        return self._tables


TABLES = RotaryTables()


class RotarySelfAttention(SelfAttention):
    """Self-attention that turns queries and keys while it lays them out for the attention kernel."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, *arguments: Any, **named: Any) -> Output:
        """hidden_states [length, batch, hidden] -> the same shape, and no bias. *Collective*: the tensor axis."""
        angles = named.get("rotary_pos_emb")
        others = [value for name, value in named.items() if name != "rotary_pos_emb"]
        if (
            angles is None
            or isinstance(angles, tuple)
            or not self._is_simple(hidden_states)
            or any(value is not None for value in (attention_mask, *arguments, *others))
        ):
            output: Output = super().forward(hidden_states, attention_mask, *arguments, **named)
            return output
        packed, _ = self.linear_qkv(hidden_states)
        cosines, sines = TABLES.of(angles)
        groups, scale = self.num_query_groups_per_partition, self.core_attention.scale

        def attend(packed: Tensor) -> Tensor:
            mixed: Tensor = RotaryAttentionFunction.apply(packed, cosines, sines, groups, scale)
            return mixed

        again = self.checkpoint_core_attention and self.training
        mixed = tensor_parallel.checkpoint(attend, False, packed) if again else attend(packed)
        projected: Output = self.linear_proj(mixed)
        return projected

    def _is_simple(self, hidden_states: Tensor) -> bool:
        dropout = self.training and self.config.attention_dropout > 0
        alone = self.pg_collection.cp.size() == 1
        return is_plain(hidden_states) and alone and not dropout


class GptModel(GPTModel):
    """A model whose loss comes out of its last hidden states in blocks, without whole logits.

    Labels may be IGNORED; their losses are 0 then.
    """

    def _postprocess(self, hidden_states: Tensor, *arguments: Any, labels: Tensor | None = None, **named: Any) -> Any:
        if not self.post_process or labels is None or not is_plain(hidden_states):
            # The cross entropy over a cut vocabulary wants real token ids; what doesn't count is left out after it.
            labels = None if labels is None else labels.clamp(min=0)
            return super()._postprocess(hidden_states, *arguments, labels=labels, **named)
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden = tensor_parallel.gather_from_sequence_parallel_region(hidden_states, group=group)
        else:
            hidden = tensor_parallel.copy_to_tensor_model_parallel_region(hidden_states, group=group)
        shared = self.share_embeddings_and_output_weights
        matrix = self.shared_embedding_or_output_weight() if shared else self.output_layer.weight
        length, batch, _ = hidden.shape
        losses = LinearCrossEntropy.apply(
            hidden.reshape(length * batch, -1),
            matrix,
            labels.t().reshape(-1),
            group.rank() * len(matrix),
            group,
            torch.is_grad_enabled(),
        )
        return losses.view(length, batch).t()
