"""The scaling-efficiency section: how much faster two processes are than one, and what that was measured on."""

from dataclasses import asdict, replace
from typing import Any

from reports.document import Block, Column, Figure, Paragraph, Section, Table
from reports.figures.efficiency import efficiency_bars, speed_against_ideal
from reports.formats import fixed, flops, percent, plural, whole
from reports.scaling import (
    CONFIDENCE,
    DEFINITIONS,
    MOST_PEAK_DISAGREEMENT,
    ScalingPoint,
    circumstances,
    link_names,
    peak_disagreement,
)
from reports.sections.study import cost_words, left_out_notices, part_figures, parts_words, study_figures
from reports.sections.training import convention_words, peak_words
from reports.story import Story
from reports.summary import scaling_of

COLUMNS = (
    Column("label", "point"),
    Column("mode", "scaling"),
    Column("link", "link"),
    Column("hosts", "hosts", whole, numeric=True),
    Column("processes", "processes", whole, numeric=True),
    Column("threads_per_process", "threads each", whole, numeric=True),
    Column("tokens_per_second", "tokens/s (median)", whole, numeric=True),
    Column("tokens_per_second_low", "lower quartile", whole, numeric=True),
    Column("tokens_per_second_high", "upper quartile", whole, numeric=True),
    Column("speedup", "speed-up", fixed(2), numeric=True),
    Column("efficiency", "efficiency", percent, numeric=True),
    Column("efficiency_margin", "95 % interval", lambda value: f"± {percent(value)}", numeric=True),
    Column("efficiency_low", "lowest round", percent, numeric=True),
    Column("efficiency_high", "highest round", percent, numeric=True),
    Column("rounds", "rounds", whole, numeric=True),
    Column("communication_share", "communication", percent, numeric=True),
    Column("mfu", "MFU", percent, numeric=True),
    Column("usd_per_billion_tokens", "$ per billion tokens", fixed(2), numeric=True),
    Column("steps_measured", "steps measured", whole, numeric=True),
    *map(Column, ("warm_up_steps", "global_batch_tokens", "data", "tensor", "pipeline", "baseline", "recipe")),
    *map(Column, ("zero_stage", "kind", "link_gigabits_per_second", "link_emulated", "interval_low", "interval_high")),
    *map(Column, ("step_seconds", "compute_seconds", "communication_seconds", "data_seconds", "other_seconds")),
    Column("run_ids"),
)
WHERE_THEY_VARY = ("link", "hosts", "usd_per_billion_tokens", "communication_share", "mode", "rounds")
"""Columns that a table prints only where they tell points apart."""

TOO_MUCH_FOR_A_STUDY = (
    *("threads_per_process", "tokens_per_second_low", "tokens_per_second_high", "speedup"),
    *("efficiency_low", "efficiency_high", "steps_measured"),
)
"""Columns that only the CSV of a study has: it prints intervals instead."""


def efficiency_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the scaling section of a chain, or None for a single run."""
    if story.subject.stage != "chain":
        return None
    points = scaling_of(story)
    if not points:
        missing = "Scaling was not measured: no run of this chain has the role “scaling”."
        return Section("scaling", "Scaling efficiency", "", [Paragraph(missing), *left_out_notices(summary)])
    blocks: list[Block] = study_figures(points) if story.study else [*_figures(points), *part_figures(points)]
    blocks += [_table(points, bool(story.study)), *left_out_notices(summary)]
    blocks += [Paragraph(f"{point.label}: {point.note}.", "notice") for point in points if point.note]
    apart = peak_disagreement([facts.measurement() for facts in story.scaling])
    if apart > MOST_PEAK_DISAGREEMENT:
        words = f"The peaks that the points measured differ by a factor of {apart:.2f} per process"
        blocks.append(
            Paragraph(
                f"{words}, so their MFUs do not compare: the machine may have done other work meanwhile.", "notice"
            )
        )
    blocks += [Paragraph(circumstances(points)), *parts_words(points)]
    blocks += [Paragraph(cost_words(points))] if story.study else []
    blocks.append(Paragraph(_utilisation(story)))
    return Section("scaling", "Scaling efficiency", _lead(points), blocks)


def _table(points: list[ScalingPoint], study: bool) -> Table:
    links = link_names(points)
    cells = [_cells(point) for point in sorted(points, key=lambda point: links.index(point.link))]
    columns = [_shown(column, [row[column.key] for row in cells], study) for column in COLUMNS]
    rows = [[row[column.key] for column in COLUMNS] for row in cells]
    return Table("scaling", "Points", columns, rows, _measured_words(points), absent="–")


def _cells(point: ScalingPoint) -> dict[str, Any]:
    low, high = point.interval_low, point.interval_high
    margin = None if low is None or high is None else (high - low) / 2
    own = {"run_ids": " ".join(point.run_ids), "efficiency_margin": margin}
    return asdict(point) | own | {"communication_share": point.communication_share, "link": point.link or None}


def _shown(column: Column, values: list[Any], study: bool) -> Column:
    """The column, or without its label where it would say nothing."""
    empty = all(value is None for value in values)
    alike = column.key in WHERE_THEY_VARY and len(set(values)) == 1
    margins = column.key == "efficiency_margin" and empty
    return replace(column, label="") if alike or margins or (study and column.key in TOO_MUCH_FOR_A_STUDY) else column


def _figures(points: list[ScalingPoint]) -> list[Block]:
    others = [p for p in points if p.efficiency is not None and p.mode != "baseline"]
    if not others:
        return []
    best = max(others, key=lambda p: p.speedup or 0.0)
    speed = f"{best.label} runs {fixed(2)(best.speedup)} times as fast as {best.baseline}"
    efficient = max(others, key=lambda p: p.efficiency or 0.0)
    efficiency = f"{efficient.label} reaches {percent(efficient.efficiency)} of ideal scaling"
    return [
        Figure(
            "scaling-speed",
            speed[0].upper() + speed[1:],
            speed_against_ideal(points, alt=speed),
            "Median tokens per second of the whole job; bars span the middle half of the steady steps.",
        ),
        Figure(
            "scaling-efficiency",
            efficiency[0].upper() + efficiency[1:],
            efficiency_bars(points, alt=efficiency),
            f"Speed-up over {best.baseline}, divided by the ratio of processes; the dashed line is ideal. A black line "
            "reaches from the lowest to the highest round.",
        ),
    ]


def _lead(points: list[ScalingPoint]) -> str:
    bases = list(dict.fromkeys(p.label for p in points if p.mode == "baseline"))
    words = [DEFINITIONS[mode] for mode in DEFINITIONS if any(p.mode == mode for p in points)]
    words = words or [DEFINITIONS["strong"]]
    each = " on the same link" if len(link_names(points)) > 1 else ""
    return " ".join([*words, *([f"Baseline: {' and '.join(bases)}{each}."] if bases else [])])


def _measured_words(points: list[ScalingPoint]) -> str:
    skipped = sorted({p.warm_up_steps for p in points})
    words = f"The first steps are warm-up and are left out ({' or '.join(map(str, skipped))} a point); "
    words += "median and quartiles are over the steps after them."
    rounds = {p.runs for p in points}
    if rounds != {1}:
        words += f" Every point was measured {_range(rounds)} times, in turn with the others: "
        words += f"efficiency is the mean over these rounds, its interval the {CONFIDENCE} (n = {_range(rounds)})."
    batches = {p.global_batch_tokens for p in points if p.global_batch_tokens}
    return f"{words} Every point: {plural(batches.pop(), 'token')} per step." if len(batches) == 1 else words


def _range(counts: set[int]) -> str:
    return " or ".join(map(str, sorted(counts)))


def _utilisation(story: Story) -> str:
    """The convention, and the peak of every point; each said once where points agree."""
    conventions = {words for facts in story.scaling if (words := convention_words(facts.training))}
    told = " ".join(sorted(conventions)) or "MFU: no FLOPs convention recorded."
    if story.study:
        return f"{told} {_peak_range(story)}"
    peaks: dict[str, list[str]] = {}
    for facts in story.scaling:
        words = peak_words(facts.training) or "not recorded"
        peaks.setdefault(words, []).append(facts.measurement().label)
    each = "; ".join(f"{', '.join(dict.fromkeys(labels))}: {words}" for words, labels in peaks.items())
    return f"{told} Peaks: {each}."


def _peak_range(story: Story) -> str:
    """The peaks of many runs in one sentence."""
    found = [facts.measurement() for facts in story.scaling]
    peaks = sorted(m.peak_flops_per_second / m.processes for m in found if m.peak_flops_per_second)
    if not peaks:
        return "No peak was recorded."
    sources = {str(facts.training.get("peak_source") or "source not recorded") for facts in story.scaling}
    return f"Each run's peak per process: {flops(peaks[0])} to {flops(peaks[-1])} ({'; '.join(sorted(sources))})."
