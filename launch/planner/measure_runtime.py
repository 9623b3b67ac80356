"""Measures runtime.yaml's programs again on this machine: `python -m launch.planner.measure_runtime`."""

from __future__ import annotations

import os
import subprocess
import sys

from launch.planner.runtime import table

# Not the largest memory by getrusage: a process inherits that of the one that started it.
ENDING = """
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024**2)
"""


def measure(program: str) -> float:
    """GiB that a process which runs a program has held at most. Linux alone tells it."""
    words = [sys.executable, "-c", table()["prelude"] + program + ENDING]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    for row in table()["cpu"]:
        print(f"{row['name']}: {measure(row['program']):.2f} GiB (the table says {row['gib']})", flush=True)
