"""Tokens per second of one process: ours, a plain PyTorch loop and Hugging Face Trainer, a few steps each in turn.

    python -m benchmarks.pretrain.speed --model 10m --rounds 8               ours against the plain loop
    python -m benchmarks.pretrain.speed --model 124m --peers plain trainer --profile

All sides train the same recipe on the same samples from the same weights, with the same threads. A round gives each a
turn; its ratio is tokens per second of ours over the peer's. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.pretrain.cases import CACHE, CASES, TINY, Case, facts_of, make_run, text_run
from benchmarks.pretrain.turns import Side, Turn
from kit.errors import SlipwayError
from kit.hardware import available_cores
from kit.run.directory import RunDirectory

WARMUP_STEPS = 3
PEERS = {
    "plain": ("benchmarks.pretrain.plain", "a plain PyTorch loop (SDPA, torch's fused AdamW)"),
    "trainer": ("benchmarks.pretrain.trainer", "Hugging Face Trainer (LlamaForCausalLM, sdpa, adamw_torch_fused)"),
}


def sides_of(case: Case, text: RunDirectory, work: Path, threads: int, peers: Sequence[str]) -> list[Side]:
    """Ours first, then the peers; all read one run directory."""
    run = make_run(case, text, work / "runs", threads)
    modules = {"ours": "benchmarks.pretrain.ours"} | {peer: PEERS[peer][0] for peer in peers}
    return [Side(name, module, run, threads, work) for name, module in modules.items()]


def alternate(sides: Sequence[Side], steps: int, rounds: int, warmup: int = WARMUP_STEPS) -> list[dict[str, Turn]]:
    """Rounds of turns, another side first in every round; the first steps of every side are left out."""
    for side in sides:
        print(f"  {side.name}: {side.steps(warmup).rate:,.0f} tokens/s while warming up", flush=True)
    done = []
    for number in range(rounds):
        first = number % len(sides)
        done.append({side.name: side.steps(steps) for side in [*sides[first:], *sides[:first]]})
        rates = ", ".join(f"{side.name} {done[-1][side.name].rate:,.0f}" for side in sides)
        print(f"  round {number + 1}: {rates} tokens/s", flush=True)
    return done


def ratio(rounds: list[dict[str, Turn]], ours: str, peer: str) -> dict[str, Any]:
    """The median ratio over the rounds, its spread, and the medians of both sides."""
    ratios = [turns[ours].rate / turns[peer].rate for turns in rounds]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "low": round(min(ratios), 4),
        "high": round(max(ratios), 4),
        "pairs": len(ratios),
        "tokens_per_second": {
            name: round(statistics.median(turns[side].rate for turns in rounds), 1)
            for name, side in (("ours", ours), ("peer", peer))
        },
        "cpu_seconds_ratio": round(
            statistics.median(turns[peer].cpu_seconds / turns[ours].cpu_seconds for turns in rounds), 4
        ),
        "max_loss_difference": max(
            abs(one - other)
            for turns in rounds
            for one, other in zip(turns[ours].losses, turns[peer].losses, strict=True)
        ),
    }


def measure(
    case: Case, text: RunDirectory, work: Path, threads: int, peers: Sequence[str], rounds: int, *, profile: bool
) -> dict[str, Any]:
    """One model: ratios by peer, what they belong to, MFU, and a profile of ours and of the peers where asked for."""
    with ExitStack() as stack:
        sides = [stack.enter_context(side) for side in sides_of(case, text, work, threads, peers)]
        done = alternate(sides, case.steps, rounds)
        peak = max(sides[0].peak() for _ in range(3))
        profiles = {s.name: s.steps(case.steps, "profile").extra["profile"] for s in sides} if profile else {}
    facts = facts_of(case, sides[0].run, text)
    rate = statistics.median(turns["ours"].rate for turns in done)
    return {
        **facts,
        "threads": threads,
        "steps_per_turn": case.steps,
        "ratios": {peer: ratio(done, "ours", peer) for peer in peers},
        "mfu": round(rate * facts["flops_per_token"] / peak, 4),
        "peak_gflops_per_second": round(peak / 1e9, 1),
        "profile": profiles,
    }


def main(given: list[str]) -> int:
    """Measures and prints; the exit code of a SlipwayError after one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*CASES, "tiny"], default="10m")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of one turn (10m: 3, 124m: 1)")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["plain"])
    parser.add_argument("--profile", action="store_true", help="one more turn of every side under torch's profiler")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the text stays here")
    arguments = parser.parse_args(given)
    case = TINY if arguments.model == "tiny" else CASES[arguments.model]
    case = case._replace(steps=arguments.steps or case.steps)
    print(
        f"{case.recipe}, batch {case.samples} x {case.length}, {arguments.threads} threads, {case.steps} steps a turn"
    )
    print("ours: `slipway run`'s stage, loop, metrics and Megatron engine, in one process")
    for peer in arguments.peers:
        print(f"{peer}: {PEERS[peer][1]}", flush=True)
    try:
        text = text_run(arguments.cache)
        with tempfile.TemporaryDirectory(dir=arguments.cache, prefix="work-") as work:
            found = measure(
                case,
                text,
                Path(work),
                arguments.threads,
                arguments.peers,
                arguments.rounds,
                profile=arguments.profile,
            )
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
