"""One stage at a time, ours against stock datatrove's block over the same pages, alternating."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.data.corpus import Corpus
from benchmarks.data.sides import Sides, ratio_of

STAGES = ("read", "extract", "language", "filters", "minhash")


def measure(sides: Sides, corpus: Corpus, rounds: int, pages: int) -> dict[str, Any]:
    """Pages a second of every stage, and the median ratio with its spread.

    Args:
        sides: where to run.
        corpus: where the pages come from.
        rounds: alternations of every stage.
        pages: how many pages of the corpus every stage sees, but for reading, which reads all.
    """
    limit = ["--limit", str(-(-pages // len(corpus.files)))]
    sides.peer("prepare", "prepared", corpus.names, *limit)
    return {stage: _stage(sides, corpus, stage, rounds) for stage in STAGES}


def _stage(sides: Sides, corpus: Corpus, stage: str, rounds: int) -> dict[str, Any]:
    ours, peers = [], []
    for number in range(rounds):
        # A folder a run: what a stage writes must not be there before it. The inputs are the same files.
        folders = [f"{stage}-{side}-{number}" for side in ("ours", "peer")]
        for folder in folders:
            _link_inputs(sides, folder)
        ours.append(sides.ours(stage, folders[0], corpus.names).result)
        peers.append(sides.peer(stage, folders[1], corpus.names).result)
    ratios = [ratio_of(mine, theirs) for mine, theirs in zip(ours, peers, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "ours_pages_per_second": _rate(ours),
        "peer_pages_per_second": _rate(peers),
    }


def _rate(results: list[dict[str, Any]]) -> float:
    return round(statistics.median(result["pages"] / result["cpu_seconds"] for result in results), 1)


def _link_inputs(sides: Sides, folder: str) -> None:
    place = sides.work / folder
    place.mkdir()
    for name in ("html.jsonl", "texts.jsonl"):
        (place / name).hardlink_to(sides.work / "prepared" / name)
