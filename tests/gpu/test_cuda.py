"""The same recipe on a CUDA device: marked gpu, never needed for green."""

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


def losses(runs: Path, *words: str) -> list[float]:
    command = [sys.executable, "-m", "launch.cli", "run", "pretrain/tiny", "--with-parents", "--runs", str(runs)]
    done = subprocess.run(
        [*command, "--json", *words],
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    path = Path(json.loads(done.stdout.splitlines()[-1])["path"])
    return [record["loss"] for record in read_metrics(path / "metrics.jsonl")]


def test_cuda_and_cpu_draw_the_same_loss_curve(tmp_path: Path) -> None:
    on_cpu = losses(tmp_path, "--target-set", "device=cpu")
    on_cuda = losses(tmp_path, "--target-set", "device=cuda")
    assert on_cuda == pytest.approx(on_cpu, abs=2e-3)


def test_bf16_on_cuda_follows_fp32(tmp_path: Path) -> None:
    full = losses(tmp_path, "--target-set", "device=cuda")
    half = losses(tmp_path, "--target-set", "device=cuda", "--set", "precision=bf16")
    assert half == pytest.approx(full, abs=5e-2)


@pytest.mark.skipif(count_cuda_devices() < 2, reason="fewer than two CUDA devices")
def test_tensor_parallel_over_nccl_matches_one_device(tmp_path: Path) -> None:
    one = losses(tmp_path, "--target-set", "device=cuda")
    two = losses(tmp_path, "--target-set", "device=cuda", "--set", "layout.tensor=2")
    assert two == pytest.approx(one, abs=2e-3)
