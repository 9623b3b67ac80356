"""Pretraining on this machine: its speed against two peers, its exactness, its saving, its scaling to two processes.

    python -m benchmarks.pretrain               about half an hour on two quiet cores
    python -m benchmarks.pretrain --quick       a smoke test of a few minutes; its figures mean little
    python -m benchmarks.pretrain --parts speed stall

The last line is JSON. What every key means is in docs/benchmarks-pretrain.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pretrain import layouts, speed, stall, two
from benchmarks.pretrain.cases import CACHE, CASES, TINY, Case, text_run
from benchmarks.program import measure_and_print
from kit.hardware import available_cores
from kit.run.directory import RunDirectory

KEYS = {
    "speed": ("ratio_plain_pytorch", "ratio_hf_trainer", "models", "mfu", "profile"),
    "layouts": ("layout_max_loss_difference", "left_out"),
    "stall": ("checkpoint_stall_percent", "checkpoint_stall"),
    "two": ("speedup_two_processes", "two_processes"),
}
"""What each part measures; the keys of a part that was not asked for are null."""


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    stall_rounds: int
    two_rounds: int
    layouts: tuple[str, ...]


FULL = Size(rounds=9, stall_rounds=5, two_rounds=7, layouts=tuple(layouts.LAYOUTS))
QUICK = Size(rounds=2, stall_rounds=1, two_rounds=2, layouts=layouts.QUICK)


class Bench(NamedTuple):
    """What all parts share."""

    size: Size
    cases: dict[str, Case]
    threads: int
    cache: Path
    text: RunDirectory
    work: Path

    def speed(self) -> dict[str, Any]:
        """Both peers, every model."""
        found = {}
        for name, case in self.cases.items():
            print(f"{name}: batch {case.samples} x {case.length}, {self.threads} threads, ours and two peers in turn")
            found[name] = speed.measure(
                case, self.text, self.work, self.threads, list(speed.PEERS), self.size.rounds, profile=True
            )
        return {
            "ratio_plain_pytorch": {name: result["ratios"].pop("plain") for name, result in found.items()},
            "ratio_hf_trainer": {name: result["ratios"].pop("trainer") for name, result in found.items()},
            "mfu": {name: result.pop("mfu") for name, result in found.items()},
            "profile": {name: result.pop("profile") for name, result in found.items()},
            "models": {name: {k: v for k, v in result.items() if k != "ratios"} for name, result in found.items()},
        }

    def layouts(self) -> dict[str, Any]:
        """Every layout's loss curve."""
        print("layouts: largest difference of 20 losses from one process, fp32")
        found, left_out = layouts.measure(self.cache, self.size.layouts)
        return {"layout_max_loss_difference": found, "left_out": left_out}

    def stall(self) -> dict[str, Any]:
        """Saving, in the background and not."""
        print(f"stall: a save every {stall.EVERY} steps against none, one thread")
        found = stall.measure(self.cases["10m"], self.text, self.work, self.size.stall_rounds)
        return {"checkpoint_stall_percent": found["asynchronous"]["percent"], "checkpoint_stall": found}

    def two(self) -> dict[str, Any]:
        """Two processes along every axis."""
        print("two: two processes against one, one thread each")
        found = two.measure(two.wide(self.cases["10m"]), self.text, self.work, self.size.two_rounds)
        return {"speedup_two_processes": found.pop("speedup"), "two_processes": found}


def arguments_of(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: a tiny model in place of both")
    parser.add_argument("--parts", nargs="+", choices=KEYS, default=list(KEYS))
    parser.add_argument("--threads", type=int, default=available_cores(), help="of every side (all cores)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the text stays here")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Measures and prints; the exit code of a SlipwayError after one."""
    arguments = arguments_of(given)
    return measure_and_print(arguments.cache, lambda folder: measure(arguments, folder))


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The parts that are asked for; the keys of the others are null."""
    cases = dict.fromkeys(CASES, TINY) if arguments.quick else CASES
    result: dict[str, Any] = {"benchmark": "pretrain", "quick": arguments.quick}
    result |= dict.fromkeys(key for keys in KEYS.values() for key in keys)
    size, text = QUICK if arguments.quick else FULL, text_run(arguments.cache)
    bench = Bench(size, cases, arguments.threads, arguments.cache, text, work)
    for part in arguments.parts:
        result |= getattr(bench, part)()
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
