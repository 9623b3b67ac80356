"""The probe stage: ranks -> what every pair of them, and all together, get out of the network."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from kit.files import atomic_write
from kit.run.directory import RunDirectory
from recipes.distributed.processes import Processes, join
from recipes.probe.config import ProbeConfig
from recipes.probe.facts import rank_facts
from recipes.probe.measure import ALGORITHM_BANDWIDTH, BUS_BANDWIDTH, LATENCY, Measured, measure_group
from recipes.probe.rounds import turns_of
from recipes.stop import STOP, Stopped

MESSAGE_BYTES = {"cpu": 4 * 1024**2, "cuda": 256 * 1024**2}
NAME = "probe.json"


def run(config: ProbeConfig, run: RunDirectory) -> None:
    """Measures every pair of ranks and the whole group; rank 0 writes artifacts/probe.json. *Collective*: every rank.

    Raises:
        UserError: The target asks for devices that are not there.
        Stopped: If it was asked to stop; nothing is kept, it is done anew.
    """
    processes = join(run.target_path, config.timeout_minutes)
    told = probe(processes, config, run)
    if processes.first:
        atomic_write(run.artifacts / NAME, json.dumps(told, indent=1) + "\n")


def probe(processes: Processes, config: ProbeConfig, run: RunDirectory) -> dict[str, Any]:
    """The content of probe.json. *Collective*: every rank."""
    facts = _gathered(processes, [rank_facts(processes, run.path)])
    measured = []
    for pairs in turns_of(processes.world_size, config.order == "at_once"):
        if processes.agree_any(STOP.requested):
            raise Stopped
        mine = next((pair for pair in pairs if processes.rank in pair), None)
        if mine is not None:
            pair = _measure(processes, config, list(mine))
            if processes.rank == mine[0]:
                measured.append(pair.as_data())
        # Who isn't in a pair of this turn is silent until it is over.
        processes.barrier()
    everyone = None
    if processes.world_size > 2:
        everyone = _measure(processes, config, list(range(processes.world_size))).as_data()
    return {
        "schema_version": 1,
        "backend": dist.get_backend(),
        "device": processes.device_words,
        "order": config.order,
        "latency_bytes": config.latency_bytes,
        "conventions": {
            "bus_bandwidth_bytes_per_second": BUS_BANDWIDTH,
            "algorithm_bandwidth_bytes_per_second": ALGORITHM_BANDWIDTH,
            "latency_seconds": LATENCY,
        },
        "ranks": facts,
        "pairs": sorted(_gathered(processes, measured), key=lambda pair: list(pair["ranks"])),
        "everyone": everyone,
    }


def _measure(processes: Processes, config: ProbeConfig, ranks: list[int]) -> Measured:
    """One group, made for its measurement and taken down again. *Collective*: the group's ranks."""
    everyone = len(ranks) == processes.world_size
    # Only the members make the group: that of a pair costs the others nothing.
    limit = timedelta(minutes=config.timeout_minutes)
    group = dist.group.WORLD if everyone else dist.new_group(ranks, limit, use_local_synchronization=True)
    assert isinstance(group, dist.ProcessGroup)
    try:
        return measure_group(
            group,
            ranks,
            processes.device,
            message_bytes=config.bandwidth_bytes or MESSAGE_BYTES[processes.device.type],
            bandwidth_repeats=config.bandwidth_repeats,
            latency_bytes=config.latency_bytes,
            latency_repeats=config.latency_repeats,
            passes=config.passes,
        )
    finally:
        if not everyone:
            dist.destroy_process_group(group)


def _gathered(processes: Processes, mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every rank's entries, in the order of ranks. *Collective*: every rank."""
    told = processes.gather_words(json.dumps(mine))
    return [entry for words in told if words is not None for entry in json.loads(words)]
