"""The few numbers of a summary that are worth a line on the terminal."""

from __future__ import annotations

from typing import Any

from kit.units import format_count


def headline(summary: dict[str, Any]) -> str:
    """Quality, data, speed and scaling, as far as the summary has them."""
    lines = []
    if _has(summary, "bits_per_byte", "bits_per_byte_untrained", "bits_per_byte_unigram"):
        trained, before = summary["bits_per_byte"], summary["bits_per_byte_untrained"]
        lines.append(
            f"Bits per byte on held-out text: {trained:.3f} (untrained {before:.3f}, "
            f"unigram {summary['bits_per_byte_unigram']:.3f}): {100 * trained / before:.0f} % of untrained"
        )
    if _has(summary, "documents_in", "documents_out"):
        lines.append(f"Documents: {summary['documents_in']} in, {summary['documents_out']} out")
    if _has(summary, "tokens_per_second"):
        lines.append(f"Training: {format_count(summary['tokens_per_second'])} tokens/s{_utilisation(summary)}")
    lines += [_point(point) for point in summary.get("scaling") or []]
    return "\n".join(lines)


def _has(summary: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(summary.get(key), int | float) for key in keys)


def _utilisation(summary: dict[str, Any]) -> str:
    if not _has(summary, "mfu"):
        return ""
    convention, peak = summary.get("flops_convention"), summary.get("peak_source")
    return f", MFU {100 * summary['mfu']:.1f} % (FLOPs convention {convention}; peak: {peak})"


def _point(point: dict[str, Any]) -> str:
    rate, efficiency = point.get("tokens_per_second"), point.get("efficiency")
    speed = f"{format_count(rate)} tokens/s" if rate else "not measured"
    ratio = f", efficiency {100 * efficiency:.0f} %" if efficiency is not None else ""
    return f"Scaling, {point.get('label')}: {speed}{ratio}"
