"""Tokens per second of `slipway run` (Megatron engine, one process) against a plain PyTorch loop, alternating.

Both train the same 10M model on the same shards with the same threads. Every pair gives one ratio, from the medians of
its steps without the first three; the last line is JSON with the median ratio and its spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from kit.metrics import read_metrics

WARMUP_STEPS = 3
SLIPWAY = [sys.executable, "-m", "launch.cli"]


def slipway_rate(runs: Path) -> tuple[float, Path]:
    """One run through the command line: median tokens per second, and its run directory."""
    command = [*SLIPWAY, "run", "pretrain/benchmark", "--with-parents", "--runs", str(runs), "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    path = Path(json.loads(finished.stdout.splitlines()[-1])["path"])
    rates = [record["tokens_per_second"] for record in read_metrics(path / "metrics.jsonl")]
    return statistics.median(rates[WARMUP_STEPS:]), path


def plain_rate(run: Path) -> float:
    """One plain loop on the same shards: median tokens per second."""
    command = [sys.executable, "-m", "benchmarks.plain_loop", str(run)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return statistics.median(json.loads(finished.stdout.splitlines()[-1])[WARMUP_STEPS:])


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    ours, peers = [], []
    for pair in range(1, arguments.pairs + 1):
        rate, run = slipway_rate(arguments.runs)
        ours.append(rate)
        peers.append(plain_rate(run))
        print(f"pair {pair}: slipway {ours[-1]:.0f}, plain loop {peers[-1]:.0f} tokens/s", flush=True)
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    result = {
        "benchmark": "pretrain",
        "model": "10M, sequence 512, one process",
        "peer": "plain PyTorch loop, SDPA, fused AdamW",
        "slipway_tokens_per_second": statistics.median(ours),
        "peer_tokens_per_second": statistics.median(peers),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "pairs": len(ratios),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
