"""What only the accelerate engine promises: any module, any part of it in a step, and proof of who is wrapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
import torch
from rank_processes import run_on_ranks
from torch import nn

from kit.errors import RunFailure, UserError
from recipes.checkpoint.writing import write_at_once
from recipes.distributed.processes import Processes
from recipes.engines.accelerate.engine import AccelerateEngine
from recipes.engines.accelerate.stepper import STATE_FILE, Stepper
from recipes.engines.table import build_engine

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=1)


class Branches(nn.Module):
    """Linear maps, of which a loss may use any."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.maps = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abcde"})
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.maps["e"].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: part(x) for name, part in self.maps.items()}


# Which maps the loss of a (rank, micro-batch) uses: c and b each on one rank and not in the last micro-batch, d never.
USED = {(0, 0): "ab", (0, 1): "a", (0, 2): "ac", (1, 0): "a", (1, 1): "ab", (1, 2): "a"}


def branches_trained(processes: Processes) -> dict[str, Any]:
    config, _ = engine_programs.configuration("accelerate", {"data": processes.world_size})
    stepper = Stepper(Branches(), config, processes)
    inputs = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(5))
    mine = [processes.rank] if processes.world_size == 2 else [0, 1]

    def losses() -> Any:
        for place in [(rank, micro) for rank in mine for micro in range(3)]:
            once, twice = stepper.wrapped(inputs[place]), stepper.wrapped(2 * inputs[place])
            yield sum(((once[name] + twice[name]) ** 2).mean() for name in USED[place])

    norms = [stepper.step(losses(), 1e-2, count=3 * len(mine)) for _ in range(3)]
    return {"norms": norms, "weights": {n: p.detach().numpy() for n, p in stepper.module.named_parameters()}}


def test_parts_that_only_some_ranks_or_micro_batches_use_are_trained_right() -> None:
    alone, both = run_on_ranks(branches_trained, 1)[0], run_on_ranks(branches_trained, 2)
    before = {name: parameter.detach().numpy() for name, parameter in Branches().named_parameters()}
    for told in both:
        np.testing.assert_allclose(told["norms"], alone["norms"], rtol=1e-5)
        for name, tensor in alone["weights"].items():
            np.testing.assert_allclose(told["weights"][name], tensor, atol=1e-6, rtol=0, err_msg=name)
    moved = {name[5] for name, tensor in both[0]["weights"].items() if np.abs(tensor - before[name]).max() > 1e-3}
    assert moved == {"a", "b", "c"}


def adapted_model() -> nn.Module:
    """A frozen Llama with LoRA adapters that drop half of their inputs."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=engine_programs.VOCAB, hidden_size=32, **sizes))
    return get_peft_model(model, LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"]))


def adapters_cut_and_resumed(processes: Processes, folder: str) -> dict[str, Any]:
    config, _ = engine_programs.configuration("accelerate", {"data": processes.world_size})
    engine = build_engine(config, adapted_model(), processes, torch.float32)
    frozen = {name: tensor.clone() for name, tensor in engine.stream_weights() if "lora" not in name}
    first = engine_programs.steps_of(engine, 1, 3)
    write_at_once(engine.save_state(Path(folder)))
    rest = engine_programs.steps_of(engine, 4, 6)
    again = build_engine(config, adapted_model(), processes, torch.float32)
    again.load_state(Path(folder))
    went_on = engine_programs.steps_of(again, 4, 6)
    still = all(torch.equal(tensor, frozen[name]) for name, tensor in again.stream_weights() if name in frozen)
    return {"first": first, "rest": rest, "went on": went_on, "frozen": len(frozen), "still": still}


def test_adapters_with_dropout_go_on_bit_by_bit_and_the_frozen_model_is_not_saved(tmp_path: Path) -> None:
    for told in run_on_ranks(adapters_cut_and_resumed, 2, str(tmp_path)):
        assert told["rest"] == told["went on"]
        assert told["first"] != told["rest"]
        assert told["frozen"] > 10
        assert told["still"]
    saved = torch.load(tmp_path / STATE_FILE, weights_only=True)["module"]
    assert len(saved) == 8
    assert all("lora" in name for name in saved)
    randoms = [torch.load(tmp_path / f"random-{rank:05d}.pt", weights_only=True)["cpu"] for rank in range(2)]
    assert not torch.equal(*randoms), "ranks drop alike"


def curve_in(processes: Processes, dtype: torch.dtype) -> dict[str, Any]:
    config, sized = engine_programs.configuration("accelerate", {}, layers=1)
    engine = AccelerateEngine(config, sized, processes, dtype)
    engine.load_weights(lambda name: engine_programs.first_tensor(sized, 1234, name))
    losses = [loss for loss, _ in engine_programs.steps_of(engine, 1, 4)]
    return {"losses": losses, "dtypes": {str(parameter.dtype) for parameter in engine.module.parameters()}}


def test_bf16_computes_in_bf16_and_keeps_fp32_weights() -> None:
    full, half = (run_on_ranks(curve_in, 1, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert half["losses"] != full["losses"]
    np.testing.assert_allclose(half["losses"], full["losses"], atol=2e-2, rtol=0)
    assert half["dtypes"] == {"torch.float32"}


def each_for_itself(processes: Processes) -> dict[str, str]:
    """Something has started accelerate before us, where the environment named no other process."""
    from accelerate import Accelerator

    assert Accelerator(cpu=True).num_processes == 1
    config, _ = engine_programs.configuration("accelerate", {"data": 2})
    with pytest.raises(RunFailure) as caught:
        Stepper(Branches(), config, processes)
    return caught.value.parts()


def test_ranks_that_accelerate_would_let_train_alone_are_stopped() -> None:
    for rank, parts in enumerate(run_on_ranks(each_for_itself, 2)):
        assert "NO, rank 0 of 1" in parts["found"]
        assert f"MULTI_CPU, rank {rank} of 2" in parts["expected"]


def settings_in_force(processes: Processes) -> dict[str, Any]:
    os.environ |= {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7"}
    before, threads = dict(os.environ), torch.get_num_threads()
    result = branches_trained(processes)
    return {"norms": result["norms"], "untouched": dict(os.environ) == before and torch.get_num_threads() == threads}


def test_settings_of_accelerates_own_launcher_change_nothing() -> None:
    told = run_on_ranks(settings_in_force, 2)
    assert told[0]["untouched"]
    assert told[0]["norms"] == run_on_ranks(branches_trained, 2)[0]["norms"]


@pytest.mark.parametrize("axis", ["tensor", "pipeline", "context"])
def test_a_layout_that_cuts_the_model_is_refused(axis: str) -> None:
    config, sized = engine_programs.configuration("accelerate", {axis: 2})
    with pytest.raises(UserError, match=f"{axis} 2") as caught:
        build_engine(config, sized, ALONE, torch.float32)
    assert "data axis" in caught.value.expected
    assert "megatron" in caught.value.action


def test_a_job_that_the_layout_does_not_fill_is_refused() -> None:
    config, _ = engine_programs.configuration("accelerate", {"data": 2})
    with pytest.raises(UserError, match="needs 2 processes"):
        Stepper(Branches(), config, ALONE)


def test_a_model_with_nothing_to_train_is_refused() -> None:
    config, _ = engine_programs.configuration("accelerate", {})
    with pytest.raises(UserError, match="no parameter is trained"):
        Stepper(Branches().requires_grad_(False), config, ALONE)


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_count_of_losses_is_our_own_mistake(count: int) -> None:
    config, _ = engine_programs.configuration("accelerate", {})
    stepper = Stepper(Branches(), config, ALONE)
    losses = (stepper.wrapped(torch.ones(4))["a"].sum() for _ in range(2))
    with pytest.raises(AssertionError, match=f"told of {count} losses"):
        stepper.step(losses, 1e-3, count)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config, _ = engine_programs.configuration("accelerate", {})
    write_at_once(Stepper(Branches(), config, ALONE).save(tmp_path))
    other = Branches()
    other.maps["e"].requires_grad_(True)
    with pytest.raises(RunFailure, match=r"maps\.e\.bias"):
        Stepper(other, config, ALONE).load(tmp_path)
