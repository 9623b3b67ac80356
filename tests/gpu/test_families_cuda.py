"""Families, dropout, recompute and the precisions of CUDA, on one or two devices: never needed for green."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.hardware import count_cuda_devices
from kit.metrics import read_metrics

ROOT = Path(__file__).parents[2]
GPT2 = ("--set", "model={family: gpt2, layers: 4, hidden: 64, heads: 4, kv_heads: 4, ffn: 256}")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(count_cuda_devices() == 0, reason="no CUDA device on this machine"),
]


def records(runs: Path, *words: str, device: str = "cuda") -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "launch.cli", "run", "pretrain/tiny", "--with-parents", "--runs", str(runs)]
    done = subprocess.run(
        [*command, "--json", "--target-set", f"device={device}", *words],
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return list(read_metrics(Path(json.loads(done.stdout.splitlines()[-1])["path"]) / "metrics.jsonl"))


def losses(runs: Path, *words: str, device: str = "cuda") -> list[float]:
    return [record["loss"] for record in records(runs, *words, device=device)]


def test_gpt2_draws_the_same_loss_curve_on_cuda(tmp_path: Path) -> None:
    on_cpu = losses(tmp_path, *GPT2, device="cpu")
    assert losses(tmp_path, *GPT2) == pytest.approx(on_cpu, abs=2e-3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_what_is_computed_again_drops_the_same(tmp_path: Path, recompute: str) -> None:
    words = (*GPT2, "--set", "model.dropout=0.2")
    kept = losses(tmp_path, *words)
    assert losses(tmp_path, *words, "--set", f"recompute={recompute}") == pytest.approx(kept, abs=1e-5)
    assert kept != pytest.approx(losses(tmp_path, *GPT2), abs=1e-3)


def test_fp16_follows_fp32(tmp_path: Path) -> None:
    half = [record["loss"] for record in records(tmp_path, "--set", "precision=fp16")]
    assert half == pytest.approx(losses(tmp_path), abs=5e-2)


@pytest.mark.skipif(importlib.util.find_spec("transformer_engine") is None, reason="no Transformer Engine")
@pytest.mark.parametrize("family", [(), GPT2], ids=["llama", "gpt2"])
def test_fp8_follows_bf16(tmp_path: Path, family: tuple[str, ...]) -> None:
    import torch

    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this device has no fp8")
    bf16 = losses(tmp_path, *family, "--set", "precision=bf16")
    assert losses(tmp_path, *family, "--set", "precision=fp8") == pytest.approx(bf16, abs=0.2)


@pytest.mark.skipif(count_cuda_devices() < 2, reason="fewer than two CUDA devices")
def test_gpt2_over_two_devices_matches_one(tmp_path: Path) -> None:
    one = losses(tmp_path, *GPT2)
    for degrees in (("layout.tensor=2", "layout.sequence=true"), ("layout.pipeline=2",)):
        words = [word for degree in degrees for word in ("--set", degree)]
        assert losses(tmp_path, *GPT2, *words) == pytest.approx(one, abs=2e-3)
