"""A prediction in words, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kit.units import format_bytes, format_duration
from launch.console import table


def prediction_lines(predicted: dict[str, Any]) -> list[str]:
    """Memory, time, money and what they rest on."""
    lines = []
    if predicted["memory_gib_per_device"] is not None:
        parts = ", ".join(f"{name.replace('_', ' ')} {format_bytes(size)}" for name, size in _largest_first(predicted))
        place = (
            f" on the fullest device, {predicted['fullest_device']}" if "fullest_device" in predicted else " a device"
        )
        lines.append(f"Memory:     about {format_bytes(predicted['memory_gib_per_device'] * 1024**3)}{place}: {parts}")
        if predicted.get("offloaded_bytes"):
            lines.append(f"            and {format_bytes(predicted['offloaded_bytes'])} in the host's memory")
        if predicted.get("device_memory_gib"):
            verdict = "fits" if predicted["fits"] else "DOES NOT FIT"
            lines.append(f"            {verdict}: there are {predicted['device_memory_gib']:.1f} GiB for each")
    if predicted.get("reason"):
        lines.append(f"Memory:     {predicted['reason']}")
    if predicted["seconds"] is not None:
        lines.append(f"Time:       about {format_duration(predicted['seconds'])}; cost: {predicted['cost_reason']}")
    lines += [f"Assumed:    {words}" for words in predicted["assumptions"]]
    return lines


def warning_lines(predicted: dict[str, Any]) -> list[str]:
    """What speaks against starting; empty where nothing does."""
    return [f"warning: {predicted['warning']}"] if predicted.get("warning") else []


def offer_lines(offers: Sequence[dict[str, Any]]) -> list[str]:
    """The table of what a run would be elsewhere, and for a single one what it rests on."""
    if not offers:
        return []
    rows: list[tuple[str, ...]] = [
        (
            offer["name"],
            f"{offer['devices']} x {offer['memory_gib']:g} GiB",
            f"{'yes' if offer['fits'] else 'no'}, {offer['needed_gib']:.3g} GiB",
            "-" if offer["seconds"] is None else f"{offer['seconds'] / 3600:.3g}",
            "-" if offer["cost_usd"] is None else _usd(offer["cost_usd"]),
            f"{offer['usd_per_hour']:g} on {offer['date']}",
        )
        for offer in offers
    ]
    lines = ["", "On rented accelerators, one a rank, by the same formulas:"]
    lines += table(("name", "devices", "fits", "hours", "USD", "USD/hour"), rows).splitlines()
    if len(offers) == 1:
        offer = offers[0]
        lines += [
            f"Price:      {offer['offer']}, {offer['source']}, {offer['date']}",
            f"Assumed:    {offer['assumption']}",
        ]
    return lines


def _usd(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 0.01 else "below 0.01"


def _largest_first(predicted: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted(predicted["memory_parts"].items(), key=lambda part: -part[1])
