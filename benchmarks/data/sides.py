"""The two sides of the comparison as command lines, alternated."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data.measured import ROOT, Cost, run

PEER_PROGRAM = ROOT / "benchmarks" / "data" / "peer_chain.py"
STOP_WORDS = ROOT / "data_prep" / "blocks" / "stop_words.yaml"


class Sides(NamedTuple):
    """Where both run.

    Attributes:
        peer_python: the Python of the peers' environment.
        work: a folder for what they write.
    """

    peer_python: Path
    work: Path

    def ours(self, command: str, folder: str, files: list[str]) -> Cost:
        """One command of ours.py."""
        place = ["--work", str(self.work / folder)]
        return run([sys.executable, "-m", "benchmarks.data.ours", command, *place, *files])

    def peer(self, command: str, folder: str, files: list[str], *more: str) -> Cost:
        """One command of peer_chain.py. -P: files beside it must not stand in for packages of the same name."""
        place = ["--work", str(self.work / folder), "--stop-words", str(STOP_WORDS)]
        return run([str(self.peer_python), "-P", str(PEER_PROGRAM), command, *place, *more, *files])

    def alternate(self, rounds: int, files: list[str]) -> Iterator[tuple[Cost, Cost]]:
        """The whole chain on both sides, taking turns at being first; a round's files stay until the next one."""
        for number in range(rounds):
            shutil.rmtree(self.work / "ours", ignore_errors=True)
            shutil.rmtree(self.work / "peer", ignore_errors=True)
            costs = {}
            for side in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                costs[side] = (self.ours if side == "ours" else self.peer)("chain", side, files)
            yield costs["ours"], costs["peer"]


def ratio_of(ours: dict[str, Any], peer: dict[str, Any]) -> float:
    """How many times as many pages a CPU second ours does; the inputs are results with pages and cpu_seconds."""
    return float((ours["pages"] / ours["cpu_seconds"]) / (peer["pages"] / peer["cpu_seconds"]))
