"""Accelerators and their peak rates, kept as data in accelerators.yaml."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from kit.config import Config


class Accelerator(Config):
    """Peak dense rates in TFLOP/s by dtype; None where the device has no such units."""

    match: str
    memory_gib: float
    fp32: float | None = None
    fp16: float | None = None
    bf16: float | None = None
    fp8: float | None = None

    def peak_flops_per_second(self, dtype: str) -> float | None:
        """Returns the peak in FLOP/s for `fp32`, `fp16`, `bf16` or `fp8`."""
        teraflops = getattr(self, dtype)
        return None if teraflops is None else teraflops * 1e12


@cache
def accelerators() -> tuple[Accelerator, ...]:
    """Returns the known accelerators."""
    rows = YAML(typ="safe", pure=True).load(Path(__file__).with_name("accelerators.yaml"))
    return tuple(Accelerator.model_validate(row) for row in rows)


def accelerator(device_name: str) -> Accelerator | None:
    """Returns the accelerator whose `match` is the longest found as whole words in a driver's device name, or None."""
    fitting = [a for a in accelerators() if re.search(rf"\b{re.escape(a.match)}\b", device_name)]
    return max(fitting, key=lambda a: len(a.match), default=None)


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the number of cores that this process may use: its affinity, and in a container its quota of time.

    Args:
        cgroup: Where the container's own control group is mounted, of version 2 or 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup / "cpu.max") or _quota(cgroup / "cpu/cpu.cfs_quota_us", cgroup / "cpu/cpu.cfs_period_us")
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota(*files: Path) -> float | None:
    """Cores' worth of time in files that hold quota and period in microseconds; None where there is no limit."""
    try:
        quota, period = (float(word) for file in files for word in file.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no such file, or `max`
        return None
    return quota / period if quota > 0 and period > 0 else None


def count_cuda_devices() -> int:
    """Returns the number of NVIDIA devices that the driver lists; 0 where there is no driver. Needs no torch."""
    return len(cuda_device_names())


def cuda_device_names() -> list[str]:
    """Returns the names of the NVIDIA devices that the driver lists. Needs no torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = listing.stdout.splitlines() if listing.returncode == 0 else []
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines if line.startswith("GPU ")]
