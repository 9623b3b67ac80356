"""The same recipe on a CUDA device: marked gpu, never needed for green."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kit.hardware import count_cuda_devices
from kit.metrics import read_metrics

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(count_cuda_devices() == 0, reason="no CUDA device on this machine"),
]


def run_of(runs: Path, *words: str) -> Path:
    command = [sys.executable, "-m", "launch.cli", "run", "pretrain/tiny", "--with-parents", "--runs", str(runs)]
    done = subprocess.run(
        [*command, "--json", *words],
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(json.loads(done.stdout.splitlines()[-1])["path"])


def losses(runs: Path, *words: str) -> list[float]:
    return [record["loss"] for record in read_metrics(run_of(runs, *words) / "metrics.jsonl")]


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


def test_fused_kernels_follow_plain_ones(tmp_path: Path) -> None:
    plain = losses(tmp_path, "--target-set", "device=cuda", "--set", "cuda.fusions=false")
    fused = losses(tmp_path, "--target-set", "device=cuda")
    assert fused == pytest.approx(plain, abs=2e-3)


@pytest.mark.skipif(count_cuda_devices() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize("axis", ["data", "pipeline", "context"])
def test_overlap_over_nccl_matches_no_overlap(tmp_path: Path, axis: str) -> None:
    sets = ["--target-set", "device=cuda", "--set", f"layout.{axis}=2"]
    plain = losses(tmp_path, *sets, "--set", "cuda.overlap=false")
    overlapped = losses(tmp_path, *sets)
    assert overlapped == pytest.approx(plain, abs=2e-3)


@pytest.mark.skipif(count_cuda_devices() < 2, reason="fewer than two CUDA devices")
@pytest.mark.skipif(find_spec("transformer_engine") is None, reason="no Transformer Engine on this machine")
def test_user_buffers_of_sequence_parallelism_match_nccl(tmp_path: Path) -> None:
    sets = ["layout.tensor=2", "layout.sequence=true", "data.micro_batch_samples=1", "precision=bf16"]
    words = ["--target-set", "device=cuda", *(word for key in sets for word in ("--set", key))]
    plain = losses(tmp_path, *words)
    overlapped = losses(tmp_path, *words, "--set", "cuda.tensor_overlap=true")
    assert overlapped == pytest.approx(plain, abs=5e-2)


def test_the_planners_memory_is_the_devices(tmp_path: Path) -> None:
    """Predicted bytes of a model that is no toy against the allocator's peak, within a quarter."""
    sets = ["model.layers=12", "model.hidden=768", "model.heads=12", "model.kv_heads=12", "model.ffn=3456"]
    sets += ["data.sequence_length=512", "precision=bf16", "budget.steps=8"]
    words = [word for key in sets for word in ("--set", key)]
    run = run_of(tmp_path, "--target-set", "device=cuda", *words)
    parts = json.loads((run / "manifest.json").read_text())["plan"]["predicted"]["memory_parts"]
    predicted = sum(size for name, size in parts.items() if name != "runtime") / 1024**3  # of the context nobody tells
    measured = max(record["peak_memory_gib"] for record in read_metrics(run / "metrics.jsonl"))
    assert predicted == pytest.approx(measured, rel=0.25)
