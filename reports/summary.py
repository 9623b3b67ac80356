"""The flat headline numbers of a report: what summary.json holds and the page's cards show.

Every group of keys is there whenever its stage belongs to the report; a number that was not measured is None.
"""

from dataclasses import asdict
from typing import Any

from kit.flops import mfu
from reports.facts import RunFacts, StageEntry, Story, number
from reports.scaling import INTERVAL, ScalingPoint, scaling_points, spread

SCHEMA_VERSION = 1
AXES = ("data", "tensor", "pipeline", "context")
FROM_TRAINING = (
    "parameters",
    "parameters_non_embedding",
    "world_size",
    "threads_per_process",
    "device",
    "engine",
    "steps",
    "global_batch_tokens",
    "flops_convention",
    "flops_per_token",
    "peak_flops_per_second",
    "peak_source",
    "validation_loss_before",
    "validation_loss_after",
    "export_max_logit_difference",
)
FROM_EVALUATION = (
    "bits_per_byte_untrained",
    "bits_per_byte",
    "bits_per_byte_unigram",
    "perplexity_untrained",
    "perplexity",
    "perplexity_unigram",
)


def summarise(story: Story) -> dict[str, Any]:
    """Returns the content of summary.json for a run or a chain."""
    subject = story.subject
    chain = subject.stage == "chain"
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": subject.id,
        "stage": subject.stage,
        "name": subject.manifest.name,
        "state": subject.state,
        "created": subject.manifest.created,
        "seconds": _rounded(subject.seconds),
    }
    if story.evaluate or chain:
        summary |= evaluation_numbers(story.evaluate)
    if story.pretrain or chain:
        summary |= training_numbers(story.pretrain)
    if story.data or chain:
        summary |= data_numbers(story.data)
    if chain:
        summary |= chain_numbers(story)
    return summary


def evaluation_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Held-out quality; `bits_per_byte_ratio` is trained over untrained."""
    found = facts.evaluation if facts else {}
    numbers: dict[str, Any] = {key: number(found.get(key)) for key in FROM_EVALUATION}
    trained, untrained = numbers["bits_per_byte"], numbers["bits_per_byte_untrained"]
    return {
        **numbers,
        "bits_per_byte_ratio": trained / untrained if trained and untrained else None,
        "evaluation_tokens": found.get("tokens"),
        "evaluation_text_bytes": found.get("text_bytes"),
    }


def training_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Size, layout, throughput and utilisation of the training run, over its steady steps."""
    found = facts.training if facts else {}
    metrics = facts.metrics if facts else []
    rate = spread([value for _, value in facts.rates]) if facts else None
    losses = [loss for loss in (number(record.get("loss")) for record in metrics) if loss is not None]
    counted = [int(record["tokens"]) for record in metrics if number(record.get("tokens"))]
    numbers: dict[str, Any] = {f"{axis}_parallel": facts.degree(axis) if facts else None for axis in AXES}
    numbers |= {key: _finite(found.get(key)) for key in FROM_TRAINING}
    numbers["steps"] = found.get("steps") or (metrics[-1]["step"] if metrics else None)
    return {
        **numbers,
        "tokens_processed": found.get("tokens") or sum(counted) or None,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "tokens_per_second": rate.median if rate else None,
        "tokens_per_second_low": rate.low if rate else None,
        "tokens_per_second_high": rate.high if rate else None,
        "steps_measured": rate.measured if rate else 0,
        "warm_up_steps": rate.warm_up if rate else 0,
        "mfu": _mfu(found, rate.median if rate else None),
        "peak_memory_gib": facts.peak_memory_gib if facts else None,
    }


def data_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Documents in and out, tokens and text bytes of the splits, vocabulary."""
    card = facts.card if facts else None
    splits = card.splits if card else {}
    numbers: dict[str, Any] = {
        "documents_in": card.documents_in if card else None,
        "documents_out": card.documents_out if card else None,
        "records_corrupt": card.records_corrupt if card else None,
        "languages": len(card.languages) if card else None,
        "vocab_size": card.tokenizer.vocab_size if card else None,
    }
    for split in ("train", "validation"):
        found = splits.get(split)
        numbers[f"tokens_{split}"] = found.tokens if found else None
        numbers[f"documents_{split}"] = found.documents if found else None
        numbers[f"text_bytes_{split}"] = found.text_bytes if found else None
    return numbers


def chain_numbers(story: Story) -> dict[str, Any]:
    """The scaling points, and time and memory by stage."""
    points = scaling_of(story)
    return {
        "scaling": [asdict(point) | {"run_ids": list(point.run_ids)} for point in points],
        "scaling_baseline": next((p.baseline for p in points if p.baseline), None),
        "scaling_kind": "strong: the same model and global batch in every point",
        "scaling_interval": INTERVAL,
        "seconds_by_stage": {e.id: _rounded(e.facts.seconds if e.facts else None) for e in story.entries},
        "peak_memory_gib_by_stage": {
            e.id: e.facts.peak_memory_gib for e in story.entries if e.facts and e.facts.peak_memory_gib is not None
        },
        "stages": [_stage_line(entry) for entry in story.entries],
    }


def scaling_of(story: Story) -> list[ScalingPoint]:
    """The points of the scaling report: one for each run of the chain with the role `scaling`."""
    return scaling_points([facts.measurement() for facts in story.scaling])


def _stage_line(entry: StageEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "stage": entry.stage,
        "run_id": entry.run_id or None,
        "role": entry.role or None,
        "reused": entry.reused,
        "state": entry.facts.state if entry.facts else None,
        "seconds": _rounded(entry.facts.seconds if entry.facts else None),
    }


def _mfu(training: dict[str, Any], tokens_per_second: float | None) -> float | None:
    flops, peak = number(training.get("flops_per_token")), number(training.get("peak_flops_per_second"))
    return mfu(tokens_per_second, flops, peak) if tokens_per_second and flops and peak else None


def _finite(value: Any) -> Any:
    """A recorded value, or None for a number that JSON can't write (a loss that diverged)."""
    return number(value) if isinstance(value, float) else value


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
