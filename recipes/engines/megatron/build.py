"""Makes megatron-core's groups, model chunks and optimizer from a recipe."""

from __future__ import annotations

from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from kit.errors import UserError
from kit.layout import Layout
from recipes.distributed.processes import Processes
from recipes.engines.megatron import cpu_shim
from recipes.engines.megatron.layers import layer_spec
from recipes.model.config import ModelConfig
from recipes.training.config import OptimizerConfig, TrainingConfig


def check(config: TrainingConfig, model: ModelConfig) -> None:
    """Refuses what this adapter can't do.

    Raises:
        UserError: If the vocabulary doesn't divide, or interleaved chunks can't be filled.
    """
    layout = config.layout
    if model.vocab_size % layout.tensor:
        # Padding would put more columns under the softmax than the exported model has: a different loss.
        raise UserError(
            f"a vocabulary of {model.vocab_size} over layout.tensor {layout.tensor}",
            expected="a vocabulary that layout.tensor divides",
            action="train the tokenizer with such a size, or change layout.tensor",
        )
    micro_batches = config.data.global_batch_samples // (layout.data * config.data.micro_batch_samples)
    if layout.interleave > 1 and micro_batches % layout.pipeline:
        raise UserError(
            f"{micro_batches} micro-batches a step over {layout.pipeline} interleaved pipeline stages",
            expected="with layout.interleave above 1, a multiple of layout.pipeline",
            action="change data.global_batch_samples or data.micro_batch_samples",
        )


def build_groups(layout: Layout, seed: int) -> ProcessGroupCollection:
    """Makes megatron's process groups. *Collective*: every rank."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        layout.tensor,
        layout.pipeline,
        layout.interleave if layout.interleave > 1 else None,
        context_parallel_size=layout.context,
        # Otherwise megatron makes gloo twins of every group, which on CPU are the groups themselves.
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return ProcessGroupCollection.use_mpu_process_groups()


def build_chunks(
    config: TrainingConfig,
    model: ModelConfig,
    translated: TransformerConfig,
    groups: ProcessGroupCollection,
    processes: Processes,
) -> list[GPTModel]:
    """This rank's pipeline chunks, bare. *Collective*: every rank."""
    chunks = []
    for number in range(config.layout.interleave):
        stage = number if config.layout.interleave > 1 else None
        with cpu_shim.cuda_names():
            chunk = GPTModel(
                translated,
                layer_spec(translated, stage),
                vocab_size=model.vocab_size,
                max_sequence_length=config.data.sequence_length,
                pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
                post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
                parallel_output=True,
                share_embeddings_and_output_weights=model.tied,
                position_embedding_type="rope",
                rotary_base=model.rope_base,
                pg_collection=groups,
                vp_stage=stage,
            )
        chunks.append(chunk.to(processes.device))
    return chunks


def wrap(
    chunks: list[GPTModel], translated: TransformerConfig, distributed: bool, groups: ProcessGroupCollection
) -> list[DistributedDataParallel]:
    """Puts megatron's data parallelism around the chunks."""
    settings = DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=distributed)
    inner = [Float16Module(translated, c) if translated.bf16 else c for c in chunks]
    return [
        DistributedDataParallel(translated, settings, chunk, disable_bucketing=number > 0, pg_collection=groups)
        for number, chunk in enumerate(inner)
    ]


def build_optimizer(
    config: OptimizerConfig,
    translated: TransformerConfig,
    wrapped: list[DistributedDataParallel],
) -> MegatronOptimizer:
    """Megatron's optimizer over the wrapped chunks. *Collective*: every rank."""
    settings = MegatronOptimizerConfig(
        optimizer="adam",
        lr=config.learning_rate,
        min_lr=0.0,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.eps,
        clip_grad=config.clip_grad,
        bf16=translated.bf16,
        params_dtype=translated.params_dtype,
        use_distributed_optimizer=config.distributed,
    )
    with cpu_shim.cuda_names():
        optimizer = get_megatron_optimizer(settings, wrapped, use_gloo_process_groups=False)
    for group in optimizer.param_groups:
        # Megatron leaves this to its own scheduler, which the training loop replaces.
        group["weight_decay"] = config.weight_decay * group.get("wd_mult", 1.0)
    translated.grad_scale_func = optimizer.scale_loss
    return optimizer
