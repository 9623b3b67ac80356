from __future__ import annotations

from pathlib import Path

import pytest

from kit.hardware import accelerator, accelerators, available_cores, count_cuda_devices


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_a_device_is_known_by_whole_words_and_the_longest_match(device: str, match: str | None) -> None:
    found = accelerator(device)
    assert (found.match if found else None) == match


def test_rates_are_in_flops_per_second_and_missing_where_there_are_none() -> None:
    h100, v100 = accelerator("NVIDIA H100 80GB HBM3"), accelerator("Tesla V100-SXM2-32GB")
    assert h100 is not None
    assert h100.peak_flops_per_second("bf16") == 989e12
    assert v100 is not None
    assert v100.peak_flops_per_second("bf16") is None


def test_every_row_is_plausible_and_stands_once() -> None:
    rows = accelerators()
    assert len({row.match for row in rows}) == len(rows) >= 5
    for row in rows:
        assert row.fp32
        assert row.fp16
        assert 10 < row.fp32 < row.fp16 < 10_000
        assert row.bf16 in (None, row.fp16)
        # Dense rates: the data sheets' headline fp8 figures are often twice this, with sparsity.
        assert row.fp8 is None or row.fp8 == pytest.approx(2 * row.fp16, rel=0.001)


@pytest.mark.parametrize(
    ("script", "count"), [("echo 'GPU 0: H100'; echo 'GPU 1: H100'", 2), ("echo 'GPU 0: H100'; exit 9", 0), ("true", 0)]
)
def test_devices_are_counted_from_the_drivers_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, count: int
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert count_cuda_devices() == count


def test_without_a_driver_there_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_cuda_devices() == 0


def test_a_containers_quota_limits_the_cores(tmp_path: Path) -> None:
    free = available_cores(tmp_path)
    assert free >= 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores(tmp_path) == free
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cores(tmp_path) == free
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("90000\n")
    assert available_cores(tmp_path) == 1
