"""Peak bytes of one device, part by part, for every stage and engine. Torch-free and pure.

A training step peaks either while the last logits and their gradients are there, or in the backward pass of the last
layer, or in the optimizer's step; states are there all the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from kit.flops import ModelShape, matrix_parameters, parameter_count
from launch.planner import states
from launch.planner.activations import Kernels, activation_bytes, kernels_of
from launch.planner.runtime import heap_share, runtime_bytes
from launch.planner.states import StateBytes
from launch.planner.workload import Workload

PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "frozen_models",
    "activations",
    "logits",
    "rollout",
    "temporary",
    "runtime",
)
LOGITS_COPIES = 3
"""Of plain cross entropy, fp32: log-probabilities, their gradient, the logits' gradient."""

LOGITS_BLOCK = 64 * 2**20
"""Bytes of logits that recipes.engines.megatron.head has at a time."""


@dataclass(frozen=True)
class Memory:
    """What the fullest device holds at its peak.

    Attributes:
        parts: Part -> bytes, every name of PARTS that is not nothing.
        offloaded: Bytes that lie in the host's memory instead.
        place: Which device is the fullest, in words; empty where all are alike.
    """

    parts: dict[str, int]
    offloaded: int = 0
    place: str = ""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


class Passing(NamedTuple):
    """What comes and goes within a step, in bytes."""

    activations: float = 0.0
    logits: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0
    rollout: float = 0.0


def predict_memory(load: Workload) -> Memory | None:
    """The peak of the fullest device; None for a stage without a model."""
    if load.stage == "data_prep":
        return None
    if load.stage == "evaluate":
        return _evaluate(load)
    if load.engine == "megatron":
        return max((_megatron(load, stage) for stage in range(load.layout.pipeline)), key=lambda memory: memory.total)
    if load.engine == "deepspeed":
        return _deepspeed(load)
    if load.stage == "rlhf" and load.parts.get("algorithm") == "ppo":
        return _ppo(load)
    return _torch(load)


def _assembled(
    load: Workload,
    kept: StateBytes,
    passing: Passing,
    *,
    frozen: float = 0.0,
    offloaded: float = 0.0,
    beside: float = 0.0,
    place: str = "",
) -> Memory:
    """States, the larger of the moments of a step, what the allocator keeps besides, and the process itself.

    `beside` is what else is there all the time: buckets of messages, gathered parameters.
    """
    learning = passing.activations + max(passing.logits, passing.backward)
    peak = max(learning, passing.optimizer, passing.rollout)
    rollout = max(0.0, passing.rollout - learning)
    temporary = peak - passing.activations - passing.logits - rollout
    temporary += heap_share(load) * peak + beside
    parts = {
        "parameters": kept.parameters,
        "gradients": kept.gradients,
        "optimizer": kept.optimizer,
        "frozen_models": frozen,
        "activations": passing.activations,
        "logits": passing.logits,
        "rollout": rollout,
        "temporary": max(0.0, temporary),
        "runtime": runtime_bytes(load),
    }
    assert tuple(parts) == PARTS
    return Memory({name: round(size) for name, size in parts.items() if round(size)}, round(offloaded), place)


def _learning(load: Workload, kernels: Kernels, micro_samples: int, logit_tokens: float | None = None) -> Passing:
    """Activations, logits and the backward pass of a whole model on one rank."""
    shape = load.shape
    tokens = micro_samples * shape.sequence_length
    counted = tokens if logit_tokens is None else micro_samples * logit_tokens
    final = tokens * kernels.norm * shape.hidden
    return Passing(
        activations=activation_bytes(shape, kernels, load.layout, micro_samples, 1) + final,
        logits=LOGITS_COPIES * 4.0 * counted * shape.vocab,
        backward=_layer_gradients(shape, tokens, kernels.width) + _largest_matrix(shape) * kernels.width,
    )


def _layer_gradients(shape: ModelShape, tokens: float, width: int, tensor: int = 1) -> float:
    """Gradients that the backward pass of one layer has at once: three FFN-wide tensors and two of the stream."""
    return tokens * width * (3 * shape.ffn / tensor + 2 * shape.hidden)


def _largest_matrix(shape: ModelShape) -> float:
    return float(shape.hidden * max(shape.vocab, 2 * shape.ffn))


def _megatron(load: Workload, stage: int) -> Memory:
    """One rank of a pipeline stage."""
    layout, shape = load.layout, load.shape
    kernels = kernels_of("megatron", load.device, load.precision, gated=shape.gated, dropout=load.drops)
    parameters = states.megatron_parameters(shape, layout.tensor, layout.pipeline, stage)
    distributed = bool(load.get("optimizer", "distributed", default=True))
    ranks = layout.data * layout.context
    kept = states.megatron_states(parameters, ranks, distributed=distributed, precision=load.precision)
    tokens = load.micro_samples * shape.sequence_length / layout.context
    last = stage == layout.pipeline - 1
    activations = activation_bytes(
        shape, kernels, layout, load.micro_samples, load.micro_batches, stage, load.recompute
    )
    if last:
        activations += tokens * kernels.norm * shape.hidden / (layout.tensor if layout.sequence else 1)
    passing = Passing(
        activations=activations,
        logits=_cross_entropy(load, tokens) if last else 0.0,
        backward=_layer_gradients(shape, tokens, kernels.width, layout.tensor)
        + _largest_matrix(shape) / layout.tensor * kernels.width,
    )
    place = f"pipeline stage {stage}" if layout.pipeline > 1 else ""
    # The distributed optimizer moves the parameters into one buffer; the C library keeps the place where they were.
    moved = kept.parameters if distributed and load.device == "cpu" else 0.0
    copied = _checkpoint_copy(load, parameters, ranks, distributed=distributed)
    if load.device == "cpu":
        return _assembled(load, kept, passing, beside=moved + copied, place=place)
    return _assembled(load, kept, passing, offloaded=copied, place=place)


def _cross_entropy(load: Workload, tokens: float) -> float:
    """Of megatron's last stage: on the CPU in fp32 a block of logits and the gradients that it leaves behind.

    Otherwise it works in place on fp32 logits, to which bf16 logits are copied (Korthikanti et al. 2022, section 4.3).
    """
    vocab, width = load.shape.vocab / load.layout.tensor, 4 if load.precision == "fp32" else 2
    if load.device == "cpu" and width == 4:
        return min(LOGITS_BLOCK, 4.0 * tokens * vocab) + 4.0 * load.shape.hidden * (tokens + vocab)
    return (4 if width == 4 else 4 + width) * tokens * vocab


def _checkpoint_copy(load: Workload, parameters: float, ranks: int, *, distributed: bool) -> float:
    """What a checkpoint is copied to in the host's memory, in the background or not.

    Weights (in fp32 they are the master weights), the master weights else, and two moments; the `ranks` that hold the
    same weights share them. A distributed optimizer's state is first gathered whole on each of them.
    """
    if not load.get("checkpoint", "every_steps"):
        return 0.0
    gathered = 12.0 * parameters if distributed and ranks > 1 else 0.0
    return parameters * (12.0 if load.precision == "fp32" else 14.0) / ranks + gathered


def _deepspeed(load: Workload) -> Memory:
    """One rank. DeepSpeed keeps an fp32 copy beside the parameters from stage 1 on, in fp32 too: K = 12."""
    shape, ranks = load.shape, load.layout.data
    stage = int(load.get("zero", "stage", default=2))
    offload = str(load.get("zero", "offload", default="none"))
    mixed = load.precision != "fp32"
    width = 2 if mixed else 4
    count = float(parameter_count(shape))
    kept = states.zero_states(
        count,
        ranks,
        stage,
        parameter_bytes=width,
        # Sums over micro-batches are fp32 from stage 1 on.
        gradient_bytes=4 if stage else width,
        optimizer_bytes=12 if mixed or stage else 8,
    )
    kernels = kernels_of("deepspeed", load.device, load.precision, gated=shape.gated)
    passing = _learning(load, kernels, load.micro_samples)
    bucket = min(count, float(load.get("zero", "bucket_elements", default=20_000_000)))
    # A bucket of gradients on its way, one of gathered parameters, and in stage 3 a layer's that are in use.
    beside = bucket * width * (2 if stage else 1)
    if stage == 3:
        beside += (matrix_parameters(shape) / shape.layers + shape.vocab * shape.hidden) * width
    passing = passing._replace(optimizer=4.0 * count / ranks + bucket * width if stage else 0.0)
    offloaded = 0.0
    if offload != "none" and load.device != "cpu":
        offloaded = kept.optimizer + (kept.gradients if stage >= 2 else 0.0)
        kept = kept._replace(optimizer=0.0, gradients=0.0 if stage >= 2 else kept.gradients)
        if offload == "optimizer_and_parameters":
            offloaded, kept = offloaded + kept.parameters, kept._replace(parameters=0.0)
    return _assembled(load, kept, passing, offloaded=offloaded, beside=beside)


def _trained(load: Workload, extra: float = 0.0) -> tuple[StateBytes, float]:
    """States under AdamW with fp32 parameters, and what autocast keeps beside them in bf16.

    DDP's buckets are the gradients themselves (`gradient_as_bucket_view`).
    """
    whole = parameter_count(load.shape) + extra
    rank = load.lora_rank
    trained = whole if rank is None else float(states.adapter_parameters(load.shape, rank))
    held = whole if rank is None else whole + trained
    kept = StateBytes(4.0 * held, 4.0 * trained, 8.0 * trained)
    return kept, 0.0 if load.precision == "fp32" else 2.0 * matrix_parameters(load.shape)


def _torch(load: Workload) -> Memory:
    """Engines reference and accelerate, and the stages sft, reward, and rlhf by dpo and grpo."""
    algorithm = str(load.parts.get("algorithm", ""))
    pairs = load.stage == "reward" or algorithm == "dpo"
    micro = load.micro_samples * (2 if pairs else 1)
    kept, beside = _trained(load)
    kernels = kernels_of(
        load.engine,
        load.device,
        load.precision,
        frozen=load.lora_rank is not None,
        masked=load.stage in ("reward", "rlhf"),
        gated=load.shape.gated,
        dropout=load.drops,
    )
    counted = {"reward": 0.0, "rlhf": _answer_tokens(load)}.get(load.stage)
    passing = _learning(load, kernels, micro, counted if algorithm != "dpo" else None)
    passing = passing._replace(backward=passing.backward + beside)
    frozen = 0.0
    if load.stage == "rlhf" and load.lora_rank is None:
        frozen = 4.0 * parameter_count(load.shape)
    if algorithm == "grpo":
        passing = passing._replace(rollout=_rollout(load, load.global_samples / load.layout.data))
    return _assembled(load, kept, passing, frozen=frozen)


def _ppo(load: Workload) -> Memory:
    """Policy with a value head, the frozen reference, a reward model where it scores, and the rollouts' cache."""
    kept, beside = _trained(load, extra=load.shape.hidden)
    kernels = kernels_of(load.engine, load.device, load.precision, masked=True)
    passing = _learning(load, kernels, load.micro_samples, _answer_tokens(load))
    mine = load.global_samples / load.layout.data
    rows = min(mine, float(load.get("ppo", "rollout_samples", default=mine)))
    passing = passing._replace(backward=passing.backward + beside, rollout=_rollout(load, rows))
    count = 4.0 * parameter_count(load.shape)
    scored_by_model = load.get("reward", "kind", default="rules") != "rules"
    return _assembled(load, kept, passing, frozen=count * (2 if scored_by_model else 1))


def _answer_tokens(load: Workload) -> float:
    return float(load.get("generation", "new_tokens", default=load.shape.sequence_length))


def _rollout(load: Workload, rows: float) -> float:
    """Keys, values and next-token logits while `rows` answers are sampled. Growing by concatenation holds it twice."""
    width = 4 if load.precision == "fp32" else 2
    cache = states.cache_bytes_per_token(load.shape, width) * load.shape.sequence_length
    one_layer = cache / load.shape.layers
    return rows * (cache + one_layer + 3 * 4.0 * load.shape.vocab)


def _evaluate(load: Workload) -> Memory:
    """One model at a time, forward only, in fp32."""
    shape = load.shape
    tokens = load.micro_samples * shape.sequence_length
    kept = StateBytes(4.0 * parameter_count(shape), 0.0, 0.0)
    passing = Passing(
        activations=tokens * 4.0 * (4 * shape.hidden + 3 * shape.ffn), logits=2 * 4.0 * tokens * shape.vocab
    )
    return _assembled(replace(load, precision="fp32"), kept, passing)
