"""What is done otherwise on CUDA, in one place: overlap of communication, fused kernels, pipeline buffers.

On a CPU every function here answers with nothing, so the numbers there are megatron's plain ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.transformer.transformer_config import TransformerConfig

from kit.layout import Layout
from recipes.model.config import ModelConfig
from recipes.training.config import CudaConfig, TrainingConfig

BUSY_RANKS = 32
"""From so many data ranks on NCCL's rings want buckets that are multiples of a large power of two."""


def on_cuda() -> bool:
    """Whether this process computes on CUDA."""
    return torch.cuda.is_available()


def has(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def transformer_settings(config: TrainingConfig, model: ModelConfig) -> dict[str, Any]:
    """Keys of megatron's TransformerConfig; nothing on a CPU."""
    if not on_cuda():
        return {}
    settings: dict[str, Any] = {
        # A stage's output that has been sent is needed by nobody but autograd, which wants its shape alone.
        "deallocate_pipeline_outputs": config.layout.pipeline > 1,
        "tp_comm_overlap": tensor_overlap(config),
    }
    return settings | (_fusions(model, config.precision) if config.cuda.fusions else {})


def _fusions(model: ModelConfig, precision: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bias_activation_fusion": True,
        "bias_dropout_fusion": True,
        # Its backward pass rounds the logits' gradient to bf16, whatever the precision.
        "cross_entropy_loss_fusion": precision in ("bf16", "fp8"),
        # The output layer is megatron's own, which adds a matrix's gradient up in its product by Apex's kernel alone.
        "gradient_accumulation_fusion": has("fused_weight_gradient_mlp_cuda"),
        "apply_rope_fusion": model.family == "llama" and has("transformer_engine"),
    }
    if model.family == "gpt2":
        # Megatron's fused bias and GELU is the tanh form, which GPT-2 has, under this name.
        settings["activation_func"] = torch.nn.functional.gelu
    return settings


def tensor_overlap(config: TrainingConfig) -> bool:
    """Whether Transformer Engine overlaps products with sequence parallelism's messages.

    Its buffers have one size, so every pass must have the same tokens: one sample a micro-batch, as validation and
    the comparison after an export have.
    """
    one_size = config.data.micro_batch_samples == 1
    return config.cuda.tensor_overlap and config.layout.sequence and one_size and has("transformer_engine")


def start_tensor_overlap(config: TrainingConfig, model: ModelConfig) -> None:
    """Makes the buffers that tensor_overlap needs. *Collective*: every rank, once the groups are there."""
    if not (on_cuda() and tensor_overlap(config)):
        return
    from transformer_engine.pytorch.module import base

    layout, precise = config.layout, dict[str, Any](use_fp8=config.precision == "fp8")
    modes = getattr(base, "UserBufferQuantizationMode", None)  # from version 2.7 on
    if modes is not None:
        precise = {"quantization_modes": [modes.FP8 if config.precision == "fp8" else modes.NONE]}
    tokens = config.data.micro_batch_samples * config.data.sequence_length // layout.context
    base.initialize_ub(shape=[tokens, model.hidden], tp_size=layout.tensor, bootstrap_backend="nccl", **precise)


def data_parallel_settings(cuda: CudaConfig, layout: Layout, *, distributed: bool) -> DistributedDataParallelConfig:
    """How gradients and parameters travel over the data axis.

    Gradients are summed in fp32 and divided by the counted labels afterwards, so that nothing is averaged on the way:
    megatron refuses `average_in_collective` for a loss per token. The size of a bucket is megatron's own, 40 million
    elements or a million a data rank.
    """
    ranks = layout.data * layout.context
    overlap = on_cuda() and cuda.overlap and ranks > 1
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=distributed,
        overlap_grad_reduce=overlap,
        overlap_param_gather=overlap and distributed,
        pad_buckets_for_high_nccl_busbw=overlap and distributed and ranks >= BUSY_RANKS,
    )


def connect(translated: TransformerConfig, wrapped: Sequence[DistributedDataParallel]) -> None:
    """Tells megatron's schedules which micro-batches' gradients stay here: all but the last."""
    if wrapped[0].ddp_config.overlap_grad_reduce:
        waiting = [chunk.no_sync for chunk in wrapped]
        translated.no_sync_func = waiting if len(waiting) > 1 else waiting[0]


def gather_parameters(wrapped: Sequence[DistributedDataParallel]) -> None:
    """Brings every rank's parameters up to date. *Collective*: every rank.

    Where their gathering overlaps the next forward pass of a training step, they are old until then; whoever reads
    them before (validation, export, checkpoint) calls this first.
    """
    for chunk in wrapped:
        if chunk.ddp_config.overlap_param_gather:
            chunk.start_param_sync(force_sync=True)
