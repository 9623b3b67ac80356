"""What the probe's measurements say: slow pairs, slow hosts, slow ranks. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kit.units import format_flops
from launch.doctor.findings import Finding

SLOW_BANDWIDTH = 0.5
SLOW_LATENCY = 5.0
UNNOTICED_LATENCY_SECONDS = 500e-6
"""A latency below this is never named: a busy core makes such differences by itself."""
SLOW_MATMUL = 0.5

Pair = tuple[int, int]
Best = Callable[[Iterable[float]], float]


def probe_findings(probe: Mapping[str, Any], hosts: Sequence[str], gigabits_per_second: float | None) -> list[Finding]:
    """Pairs and hosts that are slow among their like.

    Pairs within a host and pairs between hosts are compared each among themselves.

    Args:
        probe: The content of probe.json.
        hosts: The host of every rank, by the target's names.
        gigabits_per_second: What the target says of the link between hosts.
    """
    names = {rank: rank_name(rank, hosts) for rank in range(len(hosts))}
    found = []
    for inside in (False, True):
        kind = [pair for pair in probe["pairs"] if (len({hosts[rank] for rank in pair["ranks"]}) == 1) == inside]
        stated = gigabits_per_second * 1e9 / 8 if gigabits_per_second and not inside else None
        found += _slow_bandwidth(_figures(kind, "bus_bandwidth_bytes_per_second"), names, stated)
        found += _slow_latency(_figures(kind, "latency_seconds"), names)
    return found + _slow_ranks(probe["ranks"], names)


def rank_name(rank: int, hosts: Sequence[str]) -> str:
    """A rank as findings name it: its host, and the rank where it isn't alone there."""
    return hosts[rank] if list(hosts).count(hosts[rank]) == 1 else f"{hosts[rank]} rank {rank}"


def reference_of(figures: Mapping[Pair, float], best: Best) -> float | None:
    """The median over ranks of what each reaches in its best pair.

    A median over pairs would say nothing where one of three hosts is bad: two of the three pairs are slow then.
    """
    ranks = sorted({rank for pair in figures for rank in pair})
    of_each = [best(value for pair, value in figures.items() if rank in pair) for rank in ranks]
    return statistics.median(of_each) if of_each else None


def _figures(pairs: Sequence[Mapping[str, Any]], key: str) -> dict[Pair, float]:
    return {(pair["ranks"][0], pair["ranks"][1]): float(pair[key]) for pair in pairs}


def _slow_bandwidth(figures: Mapping[Pair, float], names: Mapping[int, str], stated: float | None) -> list[Finding]:
    usual = reference_of(figures, max)
    if usual is None:
        return []
    expected, of_what = max((usual, "the usual"), (stated or 0.0, "what the target's link says"))
    slow = {pair: value for pair, value in figures.items() if value < SLOW_BANDWIDTH * expected}

    def words(value: float) -> str:
        return f"all-reduce {_gigabits(value)}, {100 * value / expected:.0f} % of {of_what} ({_gigabits(expected)})"

    action = "check cable, switch port, duplex, and who else uses the link; then run the doctor again"
    return _named(slow, figures, names, words, action, max)


def _slow_latency(figures: Mapping[Pair, float], names: Mapping[int, str]) -> list[Finding]:
    usual = reference_of(figures, min)
    if usual is None:
        return []
    limit = max(SLOW_LATENCY * usual, UNNOTICED_LATENCY_SECONDS)
    slow = {pair: value for pair, value in figures.items() if value > limit}

    def words(value: float) -> str:
        return f"latency {_milliseconds(value)}, {value / usual:.0f} times the usual ({_milliseconds(usual)})"

    action = "check the route between them and what else runs there; then run the doctor again"
    return _named(slow, figures, names, words, action, min)


def _named(
    slow: Mapping[Pair, float],
    figures: Mapping[Pair, float],
    names: Mapping[int, str],
    words: Callable[[float], str],
    action: str,
    best: Best,
) -> list[Finding]:
    """The slow pairs; a rank whose every pair is slow is named first, where others are not."""
    found = []
    for rank in sorted({rank for pair in slow for rank in pair}):
        own = [pair for pair in figures if rank in pair]
        if len(own) > 1 and len(slow) < len(figures) and all(pair in slow for pair in own):
            value = best(figures[pair] for pair in own)
            found.append(
                Finding(names[rank], "bad", f"slow in all of its {len(own)} pairs: at best {words(value)}", action)
            )
    return found + [
        Finding(f"{names[one]} - {names[other]}", "bad", words(value), action)
        for (one, other), value in sorted(slow.items())
    ]


def _slow_ranks(ranks: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> list[Finding]:
    rates = {int(facts["rank"]): float(facts["matmul_flops_per_second"]) for facts in ranks}
    usual = statistics.median(rates.values())
    action = "see what else runs there, its clocks and its temperature"
    return [
        Finding(
            names[rank], "warning", f"multiplies at {format_flops(rate)}, the usual is {format_flops(usual)}", action
        )
        for rank, rate in rates.items()
        if rate < SLOW_MATMUL * usual
    ]


def _gigabits(bytes_per_second: float) -> str:
    return f"{bytes_per_second * 8 / 1e9:.3g} Gbit/s"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
