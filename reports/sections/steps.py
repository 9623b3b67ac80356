"""The steps of a run: where their time went, which of them were left out, and what each source of a blend lost."""

import math
import statistics

from reports.document import Block, Cell, Column, Figure, Paragraph, Table
from reports.facts import RunFacts, number
from reports.figures.steps import Curve, source_losses, step_time
from reports.formats import duration, fixed, percent, plural, whole

PARTS_OF_A_STEP = ("compute", "communication", "data", "checkpoint", "evaluation", "idle")
MOST_SKIPPED_SHOWN = 20


def time_blocks(facts: RunFacts) -> list[Block]:
    """Where the time went, as a figure and a table, and how long checkpoints held training up."""
    curves: dict[str, Curve] = {part: curve for part in PARTS_OF_A_STEP if (curve := facts.curve(f"{part}_seconds"))}
    if not curves:
        return []
    totals = {part: math.fsum(seconds for _, seconds in curve) for part, curve in curves.items()}
    whole_time = math.fsum(seconds for _, seconds in facts.curve("step_seconds")) or math.fsum(totals.values())
    rows: list[list[Cell]] = [
        [part, len(curve), statistics.median(seconds for _, seconds in curve), totals[part], totals[part] / whole_time]
        for part, curve in curves.items()
    ]
    columns = (
        Column("part", "part of a step"),
        Column("steps", "steps", whole, numeric=True),
        Column("median_seconds", "median", fixed_seconds, numeric=True),
        Column("total_seconds", "total", duration, numeric=True),
        Column("share", "share", percent, numeric=True),
    )
    table = Table("step_time", "Where the time of the steps went", columns, rows, brief=False)
    return [*_time_figure(curves, totals, whole_time), table, *_checkpoint_words(curves, totals, whole_time)]


def _time_figure(curves: dict[str, Curve], totals: dict[str, float], whole_time: float) -> list[Block]:
    """Only the parts that every step knows: where only some were profiled, a stack would not be the whole."""
    most = max(len(curve) for curve in curves.values())
    stacked = {part: curve for part, curve in curves.items() if len(curve) == most and totals[part]}
    if "idle" not in curves or most < 2:
        return []
    title = f"{percent(totals.get('compute', 0.0) / whole_time)} of the steps' time was computation"
    caption = (
        "Waiting for another rank counts as communication, so pipeline bubbles and uneven ranks are in it. Idle is "
        "what no part accounts for: the loop itself, and writing records."
    )
    return [Figure("step-time", title, step_time(stacked, alt=title), caption)]


def _checkpoint_words(curves: dict[str, Curve], totals: dict[str, float], whole_time: float) -> list[Block]:
    held = totals.get("checkpoint")
    if not held:
        return []
    longest_step, longest = max(curves["checkpoint"], key=lambda point: point[1])
    return [
        Paragraph(
            f"Checkpoints held training up for {duration(held)} in all, {percent(held / whole_time)} of the time of "
            f"the steps; longest in step {longest_step}, for {fixed_seconds(longest)}."
        )
    ]


def skipped_blocks(facts: RunFacts) -> list[Block]:
    """Steps that were left out because their numbers were bad, each with its samples."""
    # A step that was done again after a resume is told once more.
    events = {int(event["step"]): event for event in facts.events if event["event"] == "step_skipped"}
    if not events:
        return []
    rows: list[list[Cell]] = [
        [
            step,
            str(event.get("reason", "")),
            *(str(event.get(key, "")) for key in ("loss", "grad_norm")),
            _samples(event),
        ]
        for step, event in sorted(events.items())
    ]
    columns = (
        Column("step", "step", whole, numeric=True),
        Column("reason", "why"),
        Column("loss", "loss", _shortened, numeric=True),
        Column("grad_norm", "gradient norm", _shortened, numeric=True),
        Column("samples", "places of its samples in the order of training"),
    )
    words = f"{plural(len(rows), 'step')} of {whole(_last_step(facts))} left out: the optimizer did nothing in them."
    title = "Steps that were left out"
    return [
        Paragraph(words, tone="notice"),
        Table("skipped_steps", title, columns, rows, brief=False, most_rows=MOST_SKIPPED_SHOWN),
    ]


def _samples(event: dict[str, object]) -> str:
    first, samples = number(event.get("first_sample")), number(event.get("samples"))
    return "" if first is None or samples is None else f"{first:.0f} to {first + samples - 1:.0f}"


def _last_step(facts: RunFacts) -> int:
    return int(facts.metrics[-1]["step"]) if facts.metrics else 0


def _shortened(value: Cell) -> str:
    found = number(value)
    return str(value) if found is None else f"{found:.4g}"


def source_blocks(facts: RunFacts) -> list[Block]:
    """The loss by source, where the training text is a blend."""
    told = [event.get("sources") for event in facts.events if event["event"] == "data"]
    names = list(told[-1]) if told and isinstance(told[-1], dict) else []
    train, validation = (
        {name: curve for name in names if (curve := facts.curve(f"{prefix}{name}"))}
        for prefix in ("loss_", "validation_loss_")
    )
    if len({*train, *validation}) < 2:
        return []
    last = {name: curve[-1][1] for name, curve in (validation or train).items()}
    hardest, easiest = max(last, key=lambda name: last[name]), min(last, key=lambda name: last[name])
    numbers = f"{easiest} is easiest to predict ({last[easiest]:.2f}), {hardest} hardest ({last[hardest]:.2f})"
    title = f"Of the blend, {numbers}"
    caption = "Lines: the samples of each step that are of the source. Points: its held-out samples."
    return [Figure("source-loss", title, source_losses(train, validation, alt=title), caption)]


def fixed_seconds(value: Cell) -> str:
    """Seconds of one step, to the millisecond."""
    return f"{fixed(3)(value)} s"
