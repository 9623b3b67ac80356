"""The few numbers of a summary that are worth a line on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit.units import format_count


def headline(summary: dict[str, Any]) -> str:
    """Quality, data, speed, what tuning and alignment brought, and scaling, as far as the summary has them."""
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
    lines += _tuning(summary)
    lines += [_point(point) for point in summary.get("scaling") or []]
    return "\n".join(lines)


def _tuning(summary: dict[str, Any]) -> list[str]:
    """A line for instruction tuning, the reward model, and alignment."""
    lines = []
    if _has(summary, "sft_loss_after"):
        right = _moved(summary, "sft_reference_contained", _percent)
        loss = _moved(summary, "sft_loss", _two_digits)
        right = f"right answers {right}, " if right else ""
        lines.append(f"Instruction tuning: {right}loss {loss} nats per counted token")
    if _has(summary, "reward_accuracy"):
        before = summary.get("reward_accuracy_before")
        first = f" ({_percent(before)} before)" if isinstance(before, int | float) else ""
        lines.append(f"Reward model: {_percent(summary['reward_accuracy'])} of held-out pairs ranked right{first}")
    if _has(summary, "rule_reward_after"):
        words = f"Alignment, {summary.get('rlhf_algorithm')}: rule reward {_moved(summary, 'rule_reward', _two_digits)}"
        if _has(summary, "rule_reward_share_of_attainable"):
            words += f" ({_percent(summary['rule_reward_share_of_attainable'])} of what was attainable)"
        lines.append(
            words
            + (
                f", KL {summary['kl_nats_per_answer']:.2f} nats per answer"
                if _has(summary, "kl_nats_per_answer")
                else ""
            )
        )
    if _has(summary, "win_rate", "win_p_value"):
        rate, p_value = summary["win_rate"], summary["win_p_value"]
        lines.append(f"Win rate over its parent: {_percent(rate)}, ties half (sign test p = {p_value:.2g})")
    return lines


def _moved(summary: dict[str, Any], key: str, show: Callable[[float], str]) -> str:
    """Before -> after; only after where nothing was measured before, empty where neither was."""
    values = [summary.get(f"{key}_{when}") for when in ("before", "after")]
    return " -> ".join(show(value) for value in values if isinstance(value, int | float))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


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
