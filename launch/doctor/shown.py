"""An examination in words and tables."""

from __future__ import annotations

from typing import Any

from kit.units import format_bytes, format_flops
from launch.console import table
from launch.doctor.examine import Examination
from launch.doctor.pairs import rank_name

PAIRS_SHOWN = 28


def lines_of(found: Examination) -> list[str]:
    """Hosts, pairs, findings; what was left out last."""
    lines = []
    if found.hosts:
        rows = [_host_row(name, facts, found.skews.get(name)) for name, facts in found.hosts.items()]
        lines += ["", table(("HOST", "CORES", "MEMORY", "DISK FREE", "/DEV/SHM", "TORCH", "GPUS", "CLOCK"), rows)]
    if found.probe:
        lines += ["", *_probe_lines(found.probe, found.hosts_of_ranks)]
    lines += ["", *_finding_lines(found)]
    return lines + [f"Not examined: {words}" for words in found.left_out]


def data_of(found: Examination) -> dict[str, Any]:
    """For --json: everything."""
    return {
        "healthy": found.healthy,
        "findings": [finding.as_data() for finding in found.findings],
        "hosts": found.hosts,
        "clock_skew_seconds": found.skews,
        "ports": found.reached,
        "probe": found.probe,
        "hosts_of_ranks": found.hosts_of_ranks,
        "run_id": found.run.id if found.run else None,
        "left_out": found.left_out,
    }


def _host_row(name: str, facts: dict[str, Any], skew: float | None) -> tuple[str, ...]:
    shared = facts["shared_memory_bytes"]
    gpus = facts["gpus"]
    return (
        name,
        str(facts["cores"]),
        format_bytes(facts["memory_bytes"]),
        format_bytes(facts["disk_free_bytes"]),
        "none" if shared is None else format_bytes(shared),
        facts["versions"].get("torch", "none"),
        f"{len(gpus)} x {gpus[0]['name']}" if gpus else "none",
        "-" if skew is None else "right" if not skew else f"{skew:+.1f} s",
    )


def _probe_lines(probe: dict[str, Any], hosts: list[str]) -> list[str]:
    """Pairs, the slowest first, and all ranks together."""
    pairs = sorted(probe["pairs"], key=lambda pair: pair["bus_bandwidth_bytes_per_second"])
    rows: list[tuple[str, ...]] = [
        (" - ".join(rank_name(rank, hosts) for rank in pair["ranks"]), *_figures(pair)) for pair in pairs[:PAIRS_SHOWN]
    ]
    if probe["everyone"]:
        rows.append((f"all {len(hosts)} ranks", *_figures(probe["everyone"])))
    rates = [facts["matmul_flops_per_second"] for facts in probe["ranks"]]
    said = [f"Ranks: {len(rates)}, {probe['device']}, {probe['backend']}; {probe['ranks'][0]['matmul']}"]
    said[0] += f": {format_flops(min(rates))} to {format_flops(max(rates))} each"
    if not rows:
        return said
    size = format_bytes(pairs[0]["message_bytes"])
    said.append(
        f"All-reduce of {size}; bus bandwidth as NCCL-tests define it; latency of {probe['latency_bytes']} bytes"
    )
    shown = table(("PAIR", "BUS BANDWIDTH", "ALGORITHM BANDWIDTH", "LATENCY"), rows)
    more = [f"and {len(pairs) - PAIRS_SHOWN} faster pairs"] if len(pairs) > PAIRS_SHOWN else []
    return [*said, shown, *more]


def _figures(measured: dict[str, Any]) -> tuple[str, str, str]:
    bus, algorithm = (measured[f"{kind}_bandwidth_bytes_per_second"] for kind in ("bus", "algorithm"))
    return _rate(bus), _rate(algorithm), f"{1000 * measured['latency_seconds']:.3g} ms"


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second * 8 / 1e9:.3g} Gbit/s"


def _finding_lines(found: Examination) -> list[str]:
    if not found.findings:
        return ["Nothing is wrong." if not found.left_out else "Nothing is wrong as far as it was examined."]
    order = sorted(found.findings, key=lambda finding: finding.level)
    rows: list[tuple[str, ...]] = [(finding.where, finding.level, finding.what, finding.action) for finding in order]
    return [table(("WHERE", "LEVEL", "FOUND", "DO"), rows)]
