"""The headline figures of every stage, by stage name: what `stages` of summary.json holds.

Every key of a stage is always there; a number that was not recorded is None.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kit.flops import mfu
from kit.tokens.card import DatasetCard
from reports.facts import RunFacts, number, rows_of
from reports.scaling import spread

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
FROM_SFT = (
    "method",
    "pairs",
    "held_out_pairs",
    "dropped_too_long",
    "parameters",
    "trained_parameters",
    "steps",
    "loss_before",
    "loss_after",
    "reference_contained_before",
    "reference_contained_after",
    "merge_max_logit_difference",
)
FROM_REWARD = (
    "pairs",
    "held_out_pairs",
    "ties_dropped",
    "accuracy_before",
    "accuracy",
    "margin",
    "loss_before",
    "loss_after",
)
FROM_RLHF = (
    "algorithm",
    "prompts",
    "rule_reward_before",
    "rule_reward_after",
    "rule_reward_attainable",
    "share_of_attainable",
    "rule_reward_sampled_before",
    "rule_reward_sampled_after",
    "kl_nats_per_answer",
    "win_rate",
    "wins",
    "losses",
    "ties",
    "p_value",
)


def stage_numbers(facts: RunFacts) -> dict[str, Any]:
    """The headline figures of one run; empty for a stage that has none."""
    reader = NUMBERS.get(facts.stage)
    return reader(facts) if reader else {}


def data_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Documents in and out, duplicates, tokens and text bytes of the splits, vocabulary, pages a second of a core."""
    card = facts.card if facts else None
    splits = card.splits if card else {}
    numbers: dict[str, Any] = {
        "documents_in": card.documents_in if card else None,
        "documents_out": card.documents_out if card else None,
        "kept_fraction": card.documents_out / card.documents_in if card and card.documents_in else None,
        "records_corrupt": card.records_corrupt if card else None,
        "duplicates": _duplicates(card) if card else None,
        "languages": len(card.languages) if card else None,
        "vocab_size": card.tokenizer.vocab_size if card else None,
        "tokens": sum(split.tokens for split in splits.values()) if card else None,
        "text_bytes": sum(split.text_bytes for split in splits.values()) if card else None,
        **_data_speed(card),
    }
    for split in ("train", "validation"):
        found = splits.get(split)
        numbers[f"tokens_{split}"] = found.tokens if found else None
        numbers[f"documents_{split}"] = found.documents if found else None
        numbers[f"text_bytes_{split}"] = found.text_bytes if found else None
    return numbers


def _duplicates(card: DatasetCard) -> int:
    """Documents dropped because another one was like them: equal address, equal text, or nearly equal text."""
    found = ((reason, count) for block in card.blocks for reason, count in block.dropped.items())
    return sum(count for reason, count in found if reason.endswith("duplicate"))


def _data_speed(card: DatasetCard | None) -> dict[str, Any]:
    """Processor time of the whole preparation; None for runs that recorded only the blocks' wall time."""
    seconds = sum(card.step_cpu_seconds.values()) if card else 0.0
    known = card is not None and seconds > 0
    return {
        "data_cpu_seconds": seconds if known else None,
        "pages_per_second_core": card.documents_in / seconds if card and known else None,
    }


def training_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Size, layout, throughput and utilisation of the training run, over its steady steps."""
    found = facts.training if facts else {}
    metrics = facts.metrics if facts else []
    rate = spread([value for _, value in facts.rates]) if facts else None
    losses = [loss for loss in (number(record.get("loss")) for record in metrics) if loss is not None]
    counted = [int(record["tokens"]) for record in metrics if number(record.get("tokens"))]
    numbers: dict[str, Any] = {f"{axis}_parallel": facts.degree(axis) if facts else None for axis in AXES}
    numbers |= _read(found, FROM_TRAINING)
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
        "mfu": _utilisation(found, "flops_per_token", rate.median if rate else None),
        "hfu": _utilisation(found, "hardware_flops_per_token", rate.median if rate else None),
        "skipped_steps": _last_count(metrics, "skipped_steps"),
        **{f"{part}_share": _share(facts, part) for part in ("communication", "checkpoint", "idle")},
        "peak_memory_gib": facts.peak_memory_gib if facts else None,
    }


def sft_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Instruction tuning: held-out loss (nats per counted token) and answers that contain the fact."""
    return _read(facts.sft if facts else {}, FROM_SFT)


def reward_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """The reward model: share of held-out pairs that it ranks right, and by what margin."""
    return _read(facts.reward if facts else {}, FROM_REWARD)


def rlhf_numbers(facts: RunFacts | None) -> dict[str, Any]:
    """Alignment: the rule reward on held-out prompts before and after, the way from the parent, the win rate."""
    numbers = _read(facts.rlhf if facts else {}, FROM_RLHF)
    before, after, top = (number(numbers[f"rule_reward_{when}"]) for when in ("before", "after", "attainable"))
    if numbers["share_of_attainable"] is None and None not in (before, after, top) and top != before:
        numbers["share_of_attainable"] = (after - before) / (top - before)  # type: ignore[operator]
    return numbers


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


def comparison_numbers(facts: RunFacts) -> dict[str, Any]:
    """The evaluation with every model that it compared: name -> figures, and the win rates of pairs of models."""
    models = {
        str(row.get("name")): {
            "bits_per_byte": number(row.get("bits_per_byte")),
            "perplexity": number(row.get("perplexity")),
            "rule_reward": number(row.get("rule_reward")),
            "tasks": {str(name): number(task.get("value")) for name, task in tasks_of(row).items()},
        }
        for row in rows_of(facts.evaluation.get("models"))
    }
    comparisons = [
        {"first": row.get("first"), "second": row.get("second")}
        | {key: number(row.get(key)) for key in ("win_rate", "wins", "losses", "ties", "p_value")}
        for row in rows_of(facts.evaluation.get("comparisons"))
    ]
    return {**evaluation_numbers(facts), "models": models, "comparisons": comparisons}


def tasks_of(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of one model of an evaluation, name -> its metric, value, stderr and samples."""
    tasks = model.get("tasks")
    if not isinstance(tasks, dict):
        return {}
    return {str(name): task for name, task in tasks.items() if isinstance(task, dict)}


NUMBERS: dict[str, Callable[[RunFacts], dict[str, Any]]] = {
    "data_prep": data_numbers,
    "pretrain": training_numbers,
    "zero": training_numbers,
    "sft": sft_numbers,
    "reward": reward_numbers,
    "rlhf": rlhf_numbers,
    "evaluate": comparison_numbers,
}


def _read(found: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: _finite(found.get(key)) for key in keys}


def _utilisation(training: Mapping[str, Any], per_token: str, tokens_per_second: float | None) -> float | None:
    flops, peak = number(training.get(per_token)), number(training.get("peak_flops_per_second"))
    return mfu(tokens_per_second, flops, peak) if tokens_per_second and flops and peak else None


def _last_count(metrics: Sequence[Mapping[str, Any]], key: str) -> int | None:
    counts = [int(record[key]) for record in metrics if number(record.get(key)) is not None]
    return counts[-1] if counts else None


def _share(facts: RunFacts | None, part: str) -> float | None:
    """A part of the steps' time, 0 to 1, over the steps that know it."""
    known = dict(facts.curve(f"{part}_seconds")) if facts else {}
    whole = math.fsum(seconds for step, seconds in facts.curve("step_seconds") if step in known) if facts else 0.0
    return math.fsum(known.values()) / whole if whole and known else None


def _finite(value: Any) -> Any:
    """A recorded number, text or None: a loss that diverged can't be written as JSON, and a list is no figure."""
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str | int) else None
