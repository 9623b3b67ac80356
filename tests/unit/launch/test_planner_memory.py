"""Memory by formulas: published worked examples, what torch really keeps, and that more of anything needs more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.flops import ModelShape, parameter_count
from kit.layout import Layout
from launch.planner.activations import PUBLISHED, activation_bytes, kernels_of, layer_bytes_per_token
from launch.planner.memory import PARTS, predict_memory
from launch.planner.runtime import GIB, table
from launch.planner.states import adapter_parameters, megatron_parameters, zero_states
from launch.planner.work import work_of
from launch.planner.workload import Workload

LLAMA_8B = ModelShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocab=128256, sequence_length=8192
)
SMALL = ModelShape(
    layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=192, vocab=512, sequence_length=64, tied=False
)


def gpt(layers: int, hidden: int, heads: int) -> ModelShape:
    """A GPT-3 like shape as Korthikanti et al. use it: sequence 2048, MLP of four times the width."""
    sizes: dict[str, Any] = {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": heads}
    return ModelShape(**sizes, head_dim=hidden // heads, ffn=4 * hidden, vocab=51200, sequence_length=2048, gated=False)


def load(engine: str = "megatron", stage: str = "pretrain", shape: ModelShape = SMALL, **changes: Any) -> Workload:
    made = Workload(stage, engine, shape, Layout(), "cuda", "bf16", micro_samples=2, global_samples=16, steps=10)
    return replace(made, **changes)


def total(made: Workload) -> int:
    memory = predict_memory(made)
    assert memory is not None
    return memory.total


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_model_states_of_zero_are_the_papers(stage: int, gigabytes: float) -> None:
    # Rajbhandari et al. 2020, figure 1: 7.5 billion parameters on 64 GPUs, K = 12.
    assert zero_states(7.5e9, 64, stage).total / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(("ranks", "stage", "gigabytes"), [(4, 1, 52.5), (16, 2, 21.6), (1024, 3, 0.12)])
def test_more_of_the_papers_table(ranks: int, stage: int, gigabytes: float) -> None:
    # Table 1, 7.5 billion parameters, as rounded there.
    assert zero_states(7.5e9, ranks, stage).total / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "layout", "micro", "whole", "selective"),
    [
        (gpt(48, 6144, 64), Layout(tensor=8), 4, 59.25, 9.5625),
        (gpt(96, 12288, 96), Layout(tensor=8, pipeline=8, interleave=3), 1, 66.84375, 12.3515625),
        (gpt(105, 20480, 128), Layout(tensor=8, pipeline=35, interleave=3), 1, 114.0234375, 23.076171875),
        (gpt(128, 25600, 160), Layout(tensor=8, pipeline=64), 1, 131.25, 26.5625),
    ],
    ids=["22B", "175B", "530B", "1T"],
)
def test_activations_of_the_first_stage_are_the_papers(
    shape: ModelShape, layout: Layout, micro: int, whole: float, selective: float
) -> None:
    # Korthikanti et al. 2022, figure 1 in GiB: tensor parallelism alone, and with sequence parallelism and selective
    # recomputation.
    micro_batches = 1000
    got = activation_bytes(shape, PUBLISHED, layout, micro, micro_batches)
    assert got / GIB == pytest.approx(whole, rel=1e-6)
    recomputed = replace(PUBLISHED, scores="recomputed")
    both = layout.model_copy(update={"sequence": True})
    assert activation_bytes(shape, recomputed, both, micro, micro_batches) / GIB == pytest.approx(selective, rel=1e-6)


def test_a_layer_is_34_plus_5_a_s_over_h() -> None:
    # Equation 1, per token: h (34 + 5 a s / h).
    shape = gpt(96, 12288, 96)
    expected = shape.hidden * (34 + 5 * shape.heads * shape.sequence_length / shape.hidden)
    assert layer_bytes_per_token(shape, PUBLISHED) == pytest.approx(expected)


@pytest.mark.parametrize(
    "model",
    [{"kv_heads": 2}, {"kv_heads": 4}, {"family": "gpt2"}, {"family": "gpt2", "dropout": 0.1}],
    ids=["groups", "every head", "gpt2", "dropout"],
)
def test_the_reference_model_keeps_what_the_formula_says(model: dict[str, Any]) -> None:
    """Counts the storages that autograd keeps, parameters left out."""
    import torch
    import torch.nn.functional as F

    from recipes.model.config import ModelConfig
    from recipes.model.gpt import Gpt

    config = ModelConfig(layers=2, hidden=128, heads=4, ffn=352, **model).with_vocab(64, 32)
    module, tokens = Gpt(config), torch.zeros(2, 32, dtype=torch.long)
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(module(tokens).flatten(0, 1), tokens.flatten())
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    shape = config.shape(32)
    kernels = kernels_of("reference", "cpu", "fp32", gated=shape.gated, dropout=config.dropout > 0)
    predicted = activation_bytes(shape, kernels, Layout(), 2, 1) + 2 * 32 * (kernels.norm * shape.hidden + 4 * 64)
    predicted += 2 * 32 * kernels.mask * shape.hidden  # of the embeddings' dropout
    assert predicted == pytest.approx(measured, rel=0.02)


def test_parameters_of_pipeline_stages_and_tensor_ranks_add_up() -> None:
    for tied in (False, True):
        shape = LLAMA_8B.model_copy(update={"tied": tied})
        whole = sum(megatron_parameters(shape, 1, 4, stage) for stage in range(4))
        # Tied, the last stage has a copy of the embedding.
        assert whole == parameter_count(shape) + (shape.vocab * shape.hidden if tied else 0)
        assert megatron_parameters(shape, 1, 1, 0) == parameter_count(shape)
        halves = 2 * megatron_parameters(shape, 2, 1, 0)
        assert halves == parameter_count(shape) + (2 * shape.layers + 1) * shape.hidden, "norms are on both"


def test_parameters_of_gpt2s_ranks_add_up() -> None:
    shape = LLAMA_8B.model_copy(update={"kv_heads": 32, "gated": False, "biased": True, "positions": 8192})
    assert sum(megatron_parameters(shape, 1, 4, stage) for stage in range(4)) == parameter_count(shape)
    whole_on_both = (2 * shape.layers + 1) * 2 * shape.hidden + 2 * shape.layers * shape.hidden
    whole_on_both += shape.positions * shape.hidden
    assert 2 * megatron_parameters(shape, 2, 1, 0) == parameter_count(shape) + whole_on_both


def test_recomputation_keeps_the_layers_inputs_and_one_layer() -> None:
    kernels = kernels_of("megatron", "cuda", "bf16")
    layout = Layout(tensor=2, sequence=True, pipeline=4)
    one = activation_bytes(LLAMA_8B.model_copy(update={"layers": 1}), kernels, Layout(tensor=2, sequence=True), 1, 1)
    entry = 8192 * 2 * LLAMA_8B.hidden / 2
    full = activation_bytes(LLAMA_8B, kernels, layout, 1, 100, recompute="full")
    assert full == pytest.approx(32 * entry + one), "four micro-batches of eight layers each on the first stage"
    kept = activation_bytes(LLAMA_8B, kernels, layout, 1, 100)
    selective = activation_bytes(LLAMA_8B, kernels, layout, 1, 100, recompute="selective")
    assert full < selective < kept
    recomputed = load(parts={"recompute": "full"})
    assert total(recomputed) < total(load())
    assert work_of(recomputed)[0].flops == pytest.approx(work_of(load())[0].flops * 4 / 3)


def test_precisions_differ_in_the_bytes_of_weights() -> None:
    big = load(shape=LLAMA_8B)
    parts = {name: predict_memory(replace(big, precision=name)) for name in ("fp32", "bf16", "fp16", "fp8")}
    states = {name: {key: memory.parts[key] for key in PARTS[:3]} for name, memory in parts.items() if memory}
    count = parameter_count(LLAMA_8B)
    assert {name: sum(sizes.values()) / count for name, sizes in states.items()} == pytest.approx(
        {"fp32": 16, "bf16": 18, "fp16": 18, "fp8": 20}
    )


def test_a_checkpoint_is_copied_to_the_hosts_memory_first() -> None:
    often = {"checkpoint": {"every_steps": 10}}
    on_cuda = predict_memory(load(parts=often))
    assert on_cuda is not None
    assert on_cuda.offloaded == 14 * parameter_count(SMALL)
    assert total(load(parts=often)) == total(load()), "the device holds none of it"
    on_cpu = load(device="cpu", precision="fp32")
    assert total(replace(on_cpu, parts=often)) == total(on_cpu) + 12 * parameter_count(SMALL)
    assert total(replace(on_cpu, parts={"checkpoint": {"every_steps": None}})) == total(on_cpu)
    shared = predict_memory(load(parts=often, layout=Layout(data=2)))
    assert shared is not None
    assert shared.offloaded == (14 / 2 + 12) * parameter_count(SMALL), "moments are gathered whole, then shared"


def test_adapters_are_counted_as_peft_counts_them() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=64, sequence_length=8)
    assert adapter_parameters(shape, 4) == trained


def test_llama_8b_is_near_what_torchtitan_measured() -> None:
    # github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md: FSDP2 over 8 H100, 2 x 8192 tokens
    # each, bf16 with fp32 shards, per-op selective recomputation: 82.4 GiB. Without any recomputation it must be more.
    made = load(
        "deepspeed",
        "zero",
        LLAMA_8B,
        layout=Layout(data=8),
        micro_samples=2,
        parts={"zero": {"stage": 3, "offload": "none", "bucket_elements": 20_000_000}},
    )
    assert 82.4 < total(made) / GIB < 2 * 82.4


@pytest.mark.parametrize("engine", ["megatron", "deepspeed", "accelerate", "reference"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_of_anything_needs_more(engine: str, device: str) -> None:
    small = load(engine, device=device)
    for change in (
        {"micro_samples": 4},
        {"shape": SMALL.model_copy(update={"layers": 8})},
        {"shape": SMALL.model_copy(update={"vocab": 5120})},
        {"shape": SMALL.model_copy(update={"sequence_length": 128})},
    ):
        assert total(replace(small, **change)) > total(small), change


def test_every_kind_of_parallelism_spares_memory() -> None:
    big = load(shape=LLAMA_8B, micro_samples=1, global_samples=64)
    alone = total(big)
    tensor, pipeline, context, data = (
        total(replace(big, layout=Layout(**{axis: 4}))) for axis in ("tensor", "pipeline", "context", "data")
    )
    sequence = total(replace(big, layout=Layout(tensor=4, sequence=True)))
    assert max(tensor, pipeline, context, data) < alone
    assert sequence < tensor
    whole_state = replace(big, layout=Layout(data=4), parts={"optimizer": {"distributed": False}})
    assert data < total(whole_state)


def test_zero_spares_more_with_every_stage_and_offload_leaves_the_device() -> None:
    def parts(stage: int, offload: str = "none") -> dict[str, Any]:
        return {"zero": {"stage": stage, "offload": offload, "bucket_elements": 20_000_000}}

    made = [load("deepspeed", "zero", LLAMA_8B, layout=Layout(data=8), parts=parts(stage)) for stage in range(4)]
    sizes = [total(each) for each in made]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    offloaded = predict_memory(replace(made[3], parts=parts(3, "optimizer_and_parameters")))
    assert offloaded is not None
    assert "optimizer" not in offloaded.parts
    assert offloaded.offloaded == pytest.approx(18 * parameter_count(LLAMA_8B) / 8, rel=1e-6)
    # On the CPU device and host are one, and nothing is spared.
    host = predict_memory(replace(made[3], parts=parts(3, "optimizer_and_parameters"), device="cpu"))
    assert host is not None
    assert not host.offloaded
    assert host.parts["optimizer"] > 0


def test_lora_trains_adapters_and_keeps_the_rest_frozen() -> None:
    full = load("accelerate", "sft", LLAMA_8B, precision="fp32", parts={"method": "full"})
    lora = replace(full, parts={"method": "lora", "lora": {"rank": 16}})
    one, other = predict_memory(full), predict_memory(lora)
    assert one is not None
    assert other is not None
    assert other.parts["optimizer"] == 8 * adapter_parameters(LLAMA_8B, 16)
    assert other.parts["optimizer"] < one.parts["optimizer"] / 100
    assert other.parts["parameters"] > one.parts["parameters"]
    assert other.parts["activations"] < one.parts["activations"]


def test_alignment_holds_other_models_and_rollouts() -> None:
    count = 4 * parameter_count(SMALL)
    sft = load("accelerate", "sft", precision="fp32")
    ppo = replace(sft, stage="rlhf", parts={"algorithm": "ppo", "generation": {"new_tokens": 32}})
    judged = replace(ppo, parts={**ppo.parts, "reward": {"kind": "model"}})
    dpo = replace(sft, stage="rlhf", parts={"algorithm": "dpo"})
    memories = {name: predict_memory(made) for name, made in {"ppo": ppo, "judged": judged, "dpo": dpo}.items()}
    frozen = {name: memory.parts["frozen_models"] for name, memory in memories.items() if memory}
    assert frozen == {"ppo": count, "judged": 2 * count, "dpo": count}
    many = replace(ppo, global_samples=20_000)
    memory = predict_memory(many)
    assert memory is not None
    assert memory.parts["rollout"] > 0, "the cache of so many answers is what the step peaks with"
    few = predict_memory(replace(many, parts={**ppo.parts, "ppo": {"rollout_samples": 4}}))
    assert few is not None
    assert few.total < memory.total
    reward = predict_memory(replace(sft, stage="reward"))
    plain = predict_memory(sft)
    assert reward is not None
    assert plain is not None
    assert reward.parts["activations"] > 1.9 * plain.parts["activations"], "a pair is two sequences"


def test_parts_are_named_and_a_stage_without_a_model_has_none() -> None:
    memory = predict_memory(load(device="cpu", precision="fp32"))
    assert memory is not None
    assert set(memory.parts) <= set(PARTS)
    assert all(size > 0 for size in memory.parts.values())
    assert predict_memory(load(stage="data_prep")) is None


def test_the_table_of_processes_is_dated_and_names_every_engine() -> None:
    measured = table()
    assert measured["measured"]["date"] >= "2026-11-22"
    assert {"megatron", "reference", "deepspeed", "accelerate", "lora", "trl", "evaluate"} == {
        row["name"] for row in measured["cpu"]
    }
    assert all(0.1 < row["gib"] < 2 for row in measured["cpu"])


def test_a_process_that_has_loaded_torch_is_measured_as_large_as_the_table_says() -> None:
    from launch.planner.measure_runtime import measure

    row = next(row for row in table()["cpu"] if row["name"] == "reference")
    assert measure(row["program"]) == pytest.approx(row["gib"], rel=0.3)
