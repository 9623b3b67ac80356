"""Makes megatron-core's groups, model chunks and optimizer from a recipe."""

from __future__ import annotations

from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from kit.layout import Layout
from recipes.distributed.processes import Processes
from recipes.engines.megatron import cpu_shim, cuda
from recipes.engines.megatron.fused import GptModel
from recipes.engines.megatron.layers import layer_spec
from recipes.engines.megatron.translate import POSITIONS
from recipes.model.config import ModelConfig
from recipes.training.config import OptimizerConfig, TokenDataConfig, TrainingConfig

FIRST_LOSS_SCALE = 2.0**8
"""fp16's. Losses are summed over a micro-batch's tokens, which scales them too; megatron's own 2**32, made for means,
costs some thirty steps that overflow before the first that counts."""


def check(config: TrainingConfig, model: ModelConfig) -> None:
    """Refuses what this adapter can't do.

    Raises:
        UserError: If the vocabulary doesn't divide, or interleaved chunks can't be filled.
    """
    config.layout.check_vocabulary(model.vocab_size)
    config.layout.check_micro_batches(config.data.global_batch_samples, config.data.micro_batch_samples)


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
    masked = isinstance(config.data, TokenDataConfig) and config.data.reset_attention
    for number in range(config.layout.interleave):
        stage = number if config.layout.interleave > 1 else None
        with cpu_shim.cuda_names():
            chunk = GptModel(
                translated,
                layer_spec(translated, stage, masked=masked),
                vocab_size=model.vocab_size,
                max_sequence_length=model.positions or config.data.sequence_length,
                pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
                post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
                parallel_output=True,
                share_embeddings_and_output_weights=model.tied,
                position_embedding_type=POSITIONS[model.family],
                rotary_base=model.rope_base,
                pg_collection=groups,
                vp_stage=stage,
            )
        chunks.append(chunk.to(processes.device))
    return chunks


def wrap(
    config: TrainingConfig, chunks: list[GPTModel], translated: TransformerConfig, groups: ProcessGroupCollection
) -> list[DistributedDataParallel]:
    """Puts megatron's data parallelism around the chunks."""
    inner = [Float16Module(translated, c) if translated.bf16 or translated.fp16 else c for c in chunks]
    wrapped = [
        DistributedDataParallel(
            translated,
            # Of its own for every chunk: megatron fills the size of a bucket in.
            cuda.data_parallel_settings(config.cuda, config.layout, distributed=config.optimizer.distributed),
            chunk,
            disable_bucketing=number > 0,
            pg_collection=groups,
        )
        for number, chunk in enumerate(inner)
    ]
    cuda.connect(translated, wrapped)
    return wrapped


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
        fp16=translated.fp16,
        initial_loss_scale=FIRST_LOSS_SCALE,
        params_dtype=translated.params_dtype,
        use_distributed_optimizer=config.distributed,
        overlap_param_gather=wrapped[0].ddp_config.overlap_param_gather,
    )
    with cpu_shim.cuda_names():
        optimizer = get_megatron_optimizer(settings, wrapped, use_gloo_process_groups=False)
    for group in optimizer.param_groups:
        # Megatron leaves this to its own scheduler, which the training loop replaces.
        group["weight_decay"] = config.weight_decay * group.get("wd_mult", 1.0)
    translated.grad_scale_func = optimizer.scale_loss
    return optimizer
