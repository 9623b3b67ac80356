"""The scaling-efficiency section: how much faster two processes are than one, and what that was measured on."""

from dataclasses import asdict
from typing import Any

from reports.document import Block, Column, Figure, Paragraph, Section, Table
from reports.figures.efficiency import efficiency_bars, speed_against_ideal
from reports.formats import fixed, percent, plural, whole
from reports.scaling import MOST_PEAK_DISAGREEMENT, ScalingPoint, circumstances, peak_disagreement
from reports.sections.training import convention_words, peak_words
from reports.story import Story
from reports.summary import scaling_of

COLUMNS = (
    Column("label", "point"),
    Column("processes", "processes", whole, numeric=True),
    Column("threads_per_process", "threads each", whole, numeric=True),
    Column("tokens_per_second", "tokens/s (median)", whole, numeric=True),
    Column("tokens_per_second_low", "lower quartile", whole, numeric=True),
    Column("tokens_per_second_high", "upper quartile", whole, numeric=True),
    Column("speedup", "speed-up", fixed(2), numeric=True),
    Column("efficiency", "efficiency", percent, numeric=True),
    Column("efficiency_low", "lowest round", percent, numeric=True),
    Column("efficiency_high", "highest round", percent, numeric=True),
    Column("mfu", "MFU", percent, numeric=True),
    Column("steps_measured", "steps measured", whole, numeric=True),
    Column("warm_up_steps"),
    Column("global_batch_tokens"),
    Column("data"),
    Column("tensor"),
    Column("pipeline"),
    Column("baseline"),
    Column("run_ids"),
)


def efficiency_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the scaling section of a chain, or None for a single run."""
    if story.subject.stage != "chain":
        return None
    points = scaling_of(story)
    if not points:
        missing = "Scaling was not measured: no run of this chain has the role “scaling”."
        return Section("scaling", "Scaling efficiency", "", [Paragraph(missing)])
    blocks: list[Block] = [*_figures(points)]
    cells = [asdict(point) | {"run_ids": " ".join(point.run_ids)} for point in points]
    rows = [[row[column.key] for column in COLUMNS] for row in cells]
    blocks.append(Table("scaling", "Points", COLUMNS, rows, _measured_words(points)))
    blocks += [Paragraph(f"{point.label}: {point.note}.", "notice") for point in points if point.note]
    apart = peak_disagreement([facts.measurement() for facts in story.scaling])
    if apart > MOST_PEAK_DISAGREEMENT:
        words = f"The peaks that the points measured differ by a factor of {apart:.2f} per process"
        blocks.append(
            Paragraph(
                f"{words}, so their MFUs do not compare: the machine may have done other work meanwhile.", "notice"
            )
        )
    blocks.append(Paragraph(circumstances(points)))
    blocks.append(Paragraph(_utilisation(story)))
    return Section("scaling", "Scaling efficiency", _lead(points), blocks)


def _figures(points: list[ScalingPoint]) -> list[Block]:
    others = [p for p in points if p.efficiency is not None and p.baseline != p.label]
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
    baseline = next((p.baseline for p in points if p.baseline), None)
    words = "Strong scaling: the same model and the same global batch on more processes."
    return f"{words} Baseline: {baseline}." if baseline else words


def _measured_words(points: list[ScalingPoint]) -> str:
    skipped = sorted({p.warm_up_steps for p in points})
    words = f"The first steps are warm-up and are left out ({' or '.join(map(str, skipped))} a point); "
    words += "median and quartiles are over the steps after them."
    rounds = {p.runs for p in points}
    if rounds != {1}:
        words += f" Every point was measured {' or '.join(map(str, sorted(rounds)))} times, in turn with the others."
    batches = {p.global_batch_tokens for p in points if p.global_batch_tokens}
    return f"{words} Every point: {plural(batches.pop(), 'token')} per step." if len(batches) == 1 else words


def _utilisation(story: Story) -> str:
    """The convention, and the peak of every point; each said once where points agree."""
    conventions = {words for facts in story.scaling if (words := convention_words(facts.training))}
    peaks: dict[str, list[str]] = {}
    for facts in story.scaling:
        words = peak_words(facts.training) or "not recorded"
        peaks.setdefault(words, []).append(facts.measurement().label)
    told = "; ".join(f"{', '.join(labels)}: {words}" for words, labels in peaks.items())
    return f"{' '.join(sorted(conventions)) or 'MFU: no FLOPs convention recorded.'} Peaks: {told}."
