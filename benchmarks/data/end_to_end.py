"""WARC to deduplicated text: ours against stock datatrove, alternating, process CPU on one core."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.data.corpus import Corpus, sample_pages
from benchmarks.data.kept import compare
from benchmarks.data.measured import Cost
from benchmarks.data.sides import Sides
from benchmarks.data.warc import write_warc

_STARTUP_PAGES = 16  # of the sample, which mixes languages: enough that every library, model and word list is loaded


def measure(sides: Sides, corpus: Corpus, rounds: int) -> dict[str, Any]:
    """Alternates both sides over the corpus; every round gives one ratio of CPU seconds, peer over ours.

    The ratio counts everything that a user pays, imports and loading of models included. Without startup means: less
    the median cost of a run over a handful of pages, on both sides.
    """
    startup = startup_seconds(sides, max(1, rounds // 2))
    ratios, without, costs = [], [], []
    for ours, peer in sides.alternate(rounds, corpus.names):
        costs.append((ours, peer))
        ratios.append(peer.cpu_seconds / ours.cpu_seconds)
        net = peer.cpu_seconds - startup["peer"], ours.cpu_seconds - startup["ours"]
        without.append(net[0] / net[1])
        print(_line(len(costs), ours, peer), flush=True)
    pages = costs[0][0].result["pages"]
    seconds = {name: statistics.median(pair[place].cpu_seconds for pair in costs) for place, name in enumerate(startup)}
    return {
        "ratio_end_to_end": round(statistics.median(ratios), 3),
        "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "ratio_without_startup": round(statistics.median(without), 3),
        "startup_cpu_seconds": {name: round(value, 3) for name, value in startup.items()},
        "pages": pages,
        "pages_peer": costs[0][1].result["pages"],
        "html_bytes": corpus.html_bytes,
        "rounds": rounds,
        "pages_per_second": {name: round(pages / value, 2) for name, value in seconds.items()},
        "peak_memory_gib_corpus": round(max(ours.peak_gib for ours, _ in costs), 3),
        "funnel": costs[-1][0].result["funnel"],
        "kept": compare(sides.work / "ours" / "final", sides.work / "peer" / "final", corpus.truth),
    }


def _line(number: int, ours: Cost, peer: Cost) -> str:
    ratio = peer.cpu_seconds / ours.cpu_seconds
    return (
        f"round {number}: ours {ours.cpu_seconds:.1f} s, datatrove {peer.cpu_seconds:.1f} s of CPU, ratio {ratio:.2f}"
    )


def startup_seconds(sides: Sides, repeats: int) -> dict[str, float]:
    """What both sides pay before pages count: a run over a handful of pages of the embedded sample."""
    path = sides.work / "startup.warc.gz"
    write_warc(path, sample_pages(_STARTUP_PAGES))
    runs: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(repeats):
        runs["ours"].append(sides.ours("chain", f"startup-ours-{number}", [str(path)]).cpu_seconds)
        runs["peer"].append(sides.peer("chain", f"startup-peer-{number}", [str(path)]).cpu_seconds)
    return {name: statistics.median(seconds) for name, seconds in runs.items()}


def linearity(sides: Sides, corpus: Corpus, small: dict[str, Any]) -> dict[str, Any]:
    """Ours on a larger corpus: peak memory, and pages a second against the small one, without startup on both.

    Args:
        sides: where to run.
        corpus: the larger one.
        small: what `measure` gave for the smaller one.
    """
    cost = sides.ours("chain", "ours-large", corpus.names)
    startup = small["startup_cpu_seconds"]["ours"]
    before = small["pages"] / (small["pages"] / small["pages_per_second"]["ours"] - startup)
    now = cost.result["pages"] / (cost.cpu_seconds - startup)
    return {
        "peak_memory_gib": round(max(cost.peak_gib, small["peak_memory_gib_corpus"]), 3),
        "linearity": round(now / before, 3),
        "pages_large": cost.result["pages"],
        "pages_per_second_large": round(cost.result["pages"] / cost.cpu_seconds, 2),
    }
