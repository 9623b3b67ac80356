"""Time and money: operations by stage, rates from tables, prices with their dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.flops import ModelShape, flops_per_token, forward_flops_per_token
from kit.hardware import accelerator, cuda_device_names
from kit.layout import Layout
from launch.planner.prices import price_called, prices
from launch.planner.time_cost import (
    accelerator_rate,
    cost_usd,
    processor_peak,
    processor_rate,
    seconds_of,
    utilisation,
)
from launch.planner.work import FORWARD, GENERATE, TRAIN, work_of
from launch.planner.workload import Workload

SHAPE = ModelShape(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=192, vocab=512, sequence_length=64)
PER_TOKEN = flops_per_token("megatron", SHAPE)


def load(stage: str, **parts: Any) -> Workload:
    return Workload(
        stage, "accelerate", SHAPE, Layout(), "cpu", micro_samples=2, global_samples=8, steps=10, parts=parts
    )


def flops(made: Workload, kind: str) -> float:
    return sum(part.flops for part in work_of(made) if part.kind == kind)


def test_training_is_three_forward_passes_and_validation_one() -> None:
    plain = load("pretrain", validation={"every_steps": 4, "samples": 3})
    assert flops(plain, TRAIN) == pytest.approx(10 * 8 * 64 * PER_TOKEN)
    # Before, after, and after the steps 4 and 8.
    assert flops(plain, FORWARD) == pytest.approx(4 * 3 * 64 * PER_TOKEN / 3)
    assert forward_flops_per_token("megatron", SHAPE) * 3 == pytest.approx(PER_TOKEN)


def test_frozen_weights_have_no_gradients_and_pairs_are_two_sequences() -> None:
    full, lora = load("sft", method="full"), load("sft", method="lora", lora={"rank": 8})
    assert flops(lora, TRAIN) == pytest.approx(flops(full, TRAIN) * 2 / 3)
    assert flops(load("reward"), TRAIN) == pytest.approx(2 * flops(full, TRAIN))


def test_alignment_answers_scores_and_learns() -> None:
    sequences = 10 * 8
    ppo = load("rlhf", algorithm="ppo", ppo={"epochs": 3}, generation={"new_tokens": 16})
    forward = PER_TOKEN / 3
    assert flops(ppo, GENERATE) == pytest.approx(sequences * 16 * forward)
    assert flops(ppo, FORWARD) == pytest.approx(2 * sequences * 64 * forward), "the policy again, and the reference"
    assert flops(ppo, TRAIN) == pytest.approx(3 * sequences * 64 * PER_TOKEN)
    judged = replace(ppo, parts={**ppo.parts, "reward": {"kind": "model"}})
    assert flops(judged, FORWARD) == pytest.approx(flops(ppo, FORWARD) * 3 / 2)
    dpo = load("rlhf", algorithm="dpo")
    assert flops(dpo, GENERATE) == 0
    assert flops(dpo, FORWARD) == pytest.approx(2 * sequences * 64 * forward)


def test_an_evaluation_is_as_long_as_its_text_and_data_prep_is_not_known() -> None:
    made = replace(load("evaluate"), models=3)
    assert sum(part.flops for part in work_of(made, 1000)) == pytest.approx(3000 * PER_TOKEN / 3)
    assert work_of(made) == []
    assert work_of(load("data_prep")) == []


def test_seconds_and_cost_by_hand() -> None:
    h100 = accelerator("NVIDIA H100 80GB HBM3")
    assert h100 is not None
    rate = accelerator_rate(h100, 8, "bf16")
    assert rate is not None
    share = utilisation()["cuda"]["train"]["H100"]
    assert rate.by_kind[TRAIN] == pytest.approx(8 * 989e12 * share)
    seconds = seconds_of(work_of(load("pretrain")), rate)
    assert seconds == pytest.approx(rate.startup_seconds + 10 * 8 * 64 * PER_TOKEN / (8 * 989e12 * share))
    assert cost_usd(1800, 8, 4.0) == pytest.approx(16)


def test_a_device_without_units_for_a_precision_has_no_rate() -> None:
    v100 = accelerator("Tesla V100-SXM2-32GB")
    assert v100 is not None
    assert accelerator_rate(v100, 1, "bf16") is None


def test_the_processor_is_measured_once_and_its_rate_says_how() -> None:
    assert processor_peak(1, 1) > 1e8
    assert processor_peak(1, 1) is processor_peak(1, 1), "the same object: not measured again"
    rate = processor_rate(1, 1, "fp32")
    assert 0 < rate.by_kind[GENERATE] < rate.by_kind[TRAIN] < processor_peak(1, 1)
    assert "measured now" in rate.words
    assert processor_rate(1, 1, "bf16").by_kind[TRAIN] < rate.by_kind[TRAIN]


def test_every_price_has_a_date_a_source_and_a_data_sheet() -> None:
    rows = prices()
    assert len({row.name for row in rows}) == len(rows) >= 5
    for row in rows:
        assert date(2024, 1, 1) < row.date <= date.today()
        assert row.source
        assert row.offer
        assert row.read_by
        assert 0.1 < row.usd_per_hour < 50
        assert row.device.memory_gib == (row.memory_gib or row.device.memory_gib)
    assert price_called("a100-40g").device.memory_gib == 40
    assert price_called("a100-80g").device.memory_gib == 80


def test_an_unknown_accelerator_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="no accelerator called 'h10'") as caught:
        price_called("h10")
    assert "did you mean `h100`" in caught.value.action


def test_every_assumed_utilisation_is_a_share() -> None:
    table = utilisation()
    shares = [table["cpu"][key] for key in ("train", "forward", "generate", "bf16_of_fp32")]
    shares += [*table["cuda"]["train"].values(), table["cuda"]["train_elsewhere"], table["cuda"]["generate"]]
    assert all(0 < share < 1 for share in shares)
    assert all(table[device]["source"] for device in ("cpu", "cuda"))


def test_the_drivers_names_are_those_of_the_data_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU)'\necho 'GPU 1: NVIDIA L4 (UUID: )'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    names = cuda_device_names()
    assert names == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    assert [device.match for name in names if (device := accelerator(name))] == ["H100", "L4"]
