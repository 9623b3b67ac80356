"""The headline numbers of a report: what summary.json holds and the page's cards show.

Flat keys come in groups; a group is there whenever its stage belongs to the report, and all of them are in a chain's. A
number that was not measured is None. `stages` has the figures of every stage by its name, `runs` what ran in order, and
`lineage` which run was made from which.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reports.facts import RunFacts, rows_of
from reports.scaling import CONFIDENCE, INTERVAL, ScalingPoint, link_names, scaling_points
from reports.stages import (
    data_numbers,
    evaluation_numbers,
    reward_numbers,
    rlhf_numbers,
    sft_numbers,
    stage_numbers,
    training_numbers,
)
from reports.story import StageEntry, Story

SCHEMA_VERSION = 2  # 1 had the list that is now `runs` under `stages`
FLAT_RLHF = {
    "rlhf_algorithm": "algorithm",
    "rlhf_prompts": "prompts",
    "rule_reward_before": "rule_reward_before",
    "rule_reward_after": "rule_reward_after",
    "rule_reward_attainable": "rule_reward_attainable",
    "rule_reward_share_of_attainable": "share_of_attainable",
    "rule_reward_sampled_before": "rule_reward_sampled_before",
    "rule_reward_sampled_after": "rule_reward_sampled_after",
    "kl_nats_per_answer": "kl_nats_per_answer",
    "win_rate": "win_rate",
    "win_rate_wins": "wins",
    "win_rate_losses": "losses",
    "win_rate_ties": "ties",
    "win_p_value": "p_value",
}


def summarise(story: Story) -> dict[str, Any]:
    """Returns the content of summary.json for a run or a chain."""
    subject = story.subject
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": subject.id,
        "stage": subject.stage,
        "name": subject.manifest.name,
        "state": subject.state,
        "created": subject.manifest.created,
        "seconds": _rounded(subject.seconds),
    }
    every_stage = story.chain and not story.study
    if story.evaluate or every_stage:
        summary |= evaluation_numbers(story.evaluate)
    if story.training or every_stage:
        summary |= training_numbers(story.training)
    if story.data or every_stage:
        summary |= data_numbers(story.data)
    summary |= alignment_numbers(story)
    if story.chain:
        summary |= chain_numbers(story)
    return {**summary, **lineage_numbers(story)}


def alignment_numbers(story: Story) -> dict[str, Any]:
    """The flat keys of instruction tuning (sft_*), the reward model (reward_*) and reinforcement learning."""
    sft, reward, rlhf = (story.newest(stage) for stage in ("sft", "reward", "rlhf"))
    every_stage = story.chain and not story.study
    numbers: dict[str, Any] = {}
    if sft or every_stage:
        numbers |= {f"sft_{key}": value for key, value in sft_numbers(sft).items()}
    if reward or every_stage:
        numbers |= {f"reward_{key}": value for key, value in reward_numbers(reward).items()}
    if rlhf or every_stage:
        found = rlhf_numbers(rlhf)
        numbers |= {flat: found[key] for flat, key in FLAT_RLHF.items()}
    return numbers


def chain_numbers(story: Story) -> dict[str, Any]:
    """The scaling points, and time and memory by stage."""
    points = scaling_of(story)
    return {
        "scaling": [_point_numbers(point) for point in points],
        "scaling_baseline": next((p.baseline for p in points if p.baseline), None),
        "scaling_kind": scaling_kind(points),
        "scaling_interval": INTERVAL,
        "scaling_confidence": CONFIDENCE,
        "scaling_efficiency_strong": best_efficiency(points, "strong"),
        "scaling_efficiency_weak": best_efficiency(points, "weak"),
        "scaling_links": [link for link in link_names(points) if link],
        "scaling_hosts": max((point.hosts for point in points), default=None),
        "scaling_left_out": left_out(story),
        "seconds_by_stage": {e.id: _rounded(e.facts.seconds if e.facts else None) for e in story.entries},
        "peak_memory_gib_by_stage": {
            e.id: e.facts.peak_memory_gib for e in story.entries if e.facts and e.facts.peak_memory_gib is not None
        },
    }


def scaling_kind(points: Sequence[ScalingPoint]) -> str:
    """What stays the same from point to point."""
    words = {
        "strong": "strong: the same model and global batch in every point",
        "weak": "weak: the same model and batch per rank in every point",
    }
    modes = [mode for mode in words if any(point.mode == mode for point in points)]
    return "; ".join(words[mode] for mode in modes or ["strong"])


def best_efficiency(points: Sequence[ScalingPoint], mode: str) -> float | None:
    """The best efficiency on the most ranks of that mode."""
    found = [point for point in points if point.mode == mode and point.efficiency is not None]
    most = max((point.processes for point in found), default=0)
    return max((point.efficiency or 0.0 for point in found if point.processes == most), default=None)


def left_out(story: Story) -> list[dict[str, str]]:
    """Points of a study that could not be measured, each with the reason."""
    found = rows_of(story.subject.manifest.plan.get("left_out"))
    return [{key: str(row.get(key, "")) for key in ("point", "reason")} for row in found]


def _point_numbers(point: ScalingPoint) -> dict[str, Any]:
    return asdict(point) | {"run_ids": list(point.run_ids), "communication_share": point.communication_share}


def lineage_numbers(story: Story) -> dict[str, Any]:
    """What ran, what each stage brought, and which run was made from which."""
    stages: dict[str, Any] = {}
    for entry in story.entries:
        if not entry.role:  # of two runs of a stage the later one counts, as everywhere in the report
            stages[entry.stage] = _stage_figures(entry)
    return {
        "stages": stages,
        "runs": [_run_line(entry) for entry in story.entries],
        "lineage": [_lineage_line(entry) for entry in story.lineage],
    }


def scaling_of(story: Story) -> list[ScalingPoint]:
    """The points of the scaling report: one for each run of the chain with the role `scaling`."""
    return scaling_points([facts.measurement() for facts in story.scaling])


def _stage_figures(entry: StageEntry) -> dict[str, Any]:
    facts = entry.facts
    return {
        "id": entry.id,
        "run_id": entry.run_id or None,
        "state": facts.state if facts else None,
        "seconds": _rounded(facts.seconds if facts else None),
        "reused": entry.reused,
        "peak_memory_gib": facts.peak_memory_gib if facts else None,
        **(stage_numbers(facts) if facts else {}),
    }


def _run_line(entry: StageEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "stage": entry.stage,
        "run_id": entry.run_id or None,
        "role": entry.role or None,
        "reused": entry.reused,
        "state": entry.facts.state if entry.facts else None,
        "seconds": _rounded(entry.facts.seconds if entry.facts else None),
    }


def _lineage_line(entry: StageEntry) -> dict[str, Any]:
    manifest = entry.facts.manifest if entry.facts else None
    parents = manifest.parents if manifest else {}
    return {
        "id": entry.id,
        "stage": entry.stage,
        "run_id": entry.run_id or None,
        "parents": {name: parent.run_id for name, parent in parents.items()},
        "parent_digests": {name: parent.digest for name, parent in parents.items()},
        "config_digest": manifest.config_digest if manifest else None,
        "key": manifest.key if manifest else None,
        "git_commit": manifest.git_commit if manifest else None,
        "inputs": _inputs(entry.facts),
    }


def _inputs(facts: RunFacts | None) -> dict[str, str]:
    """Input file -> SHA-256, for a stage that recorded what it read from outside: the crawl."""
    return {found.path: found.sha256 for found in facts.card.inputs} if facts and facts.card else {}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
