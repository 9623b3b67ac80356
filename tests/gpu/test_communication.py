"""Exposed communication on real CUDA devices: marked gpu, never needed for green."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.hardware import count_cuda_devices
from kit.metrics import read_metrics

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(count_cuda_devices() == 0, reason="no CUDA device on this machine"),
]


def test_kernels_of_a_profile_are_found_and_none_of_them_is_communication() -> None:
    import torch

    from recipes.training.communication import exposed_seconds, kernels_of

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        left = torch.randn(2048, 2048, device="cuda")
        (left @ left).sum().item()
    kernels = kernels_of(profile)
    assert any("gemm" in kernel.name.lower() for kernel in kernels)
    assert all(kernel.end_ns >= kernel.start_ns for kernel in kernels)
    assert exposed_seconds(kernels) == 0.0


@pytest.mark.skipif(count_cuda_devices() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize(("axis", "engine"), [("tensor", "megatron"), ("data", "megatron"), ("data", "accelerate")])
def test_three_steps_of_a_run_over_nccl_know_their_communication(tmp_path: Path, axis: str, engine: str) -> None:
    command = [sys.executable, "-m", "launch.cli", "run", "pretrain/tiny", "--with-parents", "--runs", str(tmp_path)]
    command += ["--target-set", "device=cuda", "--set", f"layout.{axis}=2", "--set", f"engine={engine}", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CI": "true"}, stdout=subprocess.PIPE, text=True, check=True
    )
    records = read_metrics(Path(json.loads(done.stdout.splitlines()[-1])["path"]) / "metrics.jsonl")
    measured = [record for record in records if "communication_seconds" in record]
    assert [record["step"] for record in measured] == [6, 7, 8]
    for record in measured:
        assert 0 < record["communication_seconds"] < record["step_seconds"]
