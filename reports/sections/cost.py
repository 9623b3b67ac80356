"""The section on what the stages cost: time and memory, and what the plan foresaw of both."""

from typing import Any

from reports.document import Block, Cell, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, number
from reports.figures.cost import against_prediction, by_stage, stacked
from reports.formats import duration, fixed, gibibytes, plural, size
from reports.story import StageEntry, Story


def _ratio(value: Cell) -> str:
    return f"{fixed(2)(value)} ×"


PREDICTED_COLUMNS = (
    Column("id", "stage"),
    Column("predicted_memory_gib", "memory predicted", gibibytes, numeric=True),
    Column("measured_memory_gib", "measured", gibibytes, numeric=True),
    Column("memory_ratio", "ratio", _ratio, numeric=True),
    Column("predicted_seconds", "time predicted", duration, numeric=True),
    Column("measured_seconds", "measured", duration, numeric=True),
    Column("seconds_ratio", "ratio", _ratio, numeric=True),
    Column("predicted_cost_usd", "cost predicted", lambda value: f"${fixed(2)(value)}", numeric=True),
)


def cost_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on time and memory; None for a study, or one stage of which nothing was predicted."""
    if story.study:  # its many short runs differ in what the section on scaling tells
        return None
    entries = [entry for entry in story.entries if entry.facts and (story.chain or entry.facts is story.subject)]
    blocks = [*_time_figure(entries), *_memory_figure(entries), *_predicted(entries)]
    if not blocks:
        return None
    lead = "Wall time from submission to the end, start-up included; memory is of the largest process of a stage."
    return Section("cost", "Time and memory", lead, blocks)


def _time_figure(entries: list[StageEntry]) -> list[Block]:
    times = [(entry, facts.seconds) for entry in entries if (facts := entry.facts) and facts.seconds]
    if len(times) < 2:
        return []
    slowest, longest = max(times, key=lambda pair: pair[1])
    title = f"{slowest.id} took longest: {duration(longest)} of {duration(sum(seconds for _, seconds in times))}"
    bars = [(entry.id, seconds, duration(seconds) + _reused(entry), _kind(entry)) for entry, seconds in times]
    return [Figure("time", title, by_stage("time", bars, alt=title), f"Wall time of each stage.{_colors(entries)}")]


def _memory_figure(entries: list[StageEntry]) -> list[Block]:
    found = [(entry, peak) for entry in entries if entry.facts and (peak := entry.facts.peak_memory_gib) is not None]
    if len(found) < 2:
        return []
    largest, peak = max(found, key=lambda pair: pair[1])
    title = f"{largest.id} needed the most memory: {gibibytes(peak)} in its largest process"
    bars = [(entry.id, gib, gibibytes(gib), _kind(entry)) for entry, gib in found]
    caption = f"Resident memory of the largest process on a CPU, allocated memory on a GPU.{_colors(entries)}"
    return [Figure("memory", title, by_stage("memory", bars, alt=title), caption)]


def _kind(entry: StageEntry) -> str:
    return "reused" if entry.reused else entry.role


def _reused(entry: StageEntry) -> str:
    return " (reused)" if entry.reused else ""


def _colors(entries: list[StageEntry]) -> str:
    words = " Light blue: measurements of scaling." if any(entry.role == "scaling" for entry in entries) else ""
    reused = [entry.id for entry in entries if entry.reused]
    return words + (f" Orange: reused from an earlier run ({', '.join(reused)})." if reused else "")


def _predicted(entries: list[StageEntry]) -> list[Block]:
    """Figures and a table of what was foreseen; a reused stage counts with the run that did it."""
    foreseen = [(e.id, e.facts) for e in entries if e.facts and e.facts.predicted and not e.role]
    if not foreseen:
        return []
    rows = [_predicted_row(name, facts) for name, facts in foreseen]
    blocks = [
        *_against("predicted-memory", "memory", [(name, f.peak_memory_gib, _foreseen(f)[0]) for name, f in foreseen]),
        *_against("predicted-time", "time", [(name, f.seconds, _foreseen(f)[1]) for name, f in foreseen]),
    ]
    without_cost = all(row[-1] is None for row in rows)
    columns = PREDICTED_COLUMNS[:-1] if without_cost else PREDICTED_COLUMNS
    rows = [row[: len(columns)] for row in rows]
    note = "Ratios are measured over predicted."
    blocks.append(Table("predicted", "Predicted and measured", columns, rows, note, absent="–"))
    return [*blocks, *_parts(foreseen), *_assumptions(foreseen)]


def _against(name: str, what: str, rows: list[tuple[str, float | None, float | None]]) -> list[Block]:
    """Measured bars with the predictions as marks, of the stages that have both."""
    both = [(stage, measured, predicted) for stage, measured, predicted in rows if measured and predicted]
    if not both:
        return []
    worst = max(max(measured / predicted, predicted / measured) for _, measured, predicted in both)
    title = f"Measured {what} lies within a factor of {worst:.2f} of the prediction"
    svg = against_prediction(name, both, gibibytes if what == "memory" else duration, alt=title)
    return [Figure(name, title, svg, "Bars are measured; the black marks were predicted before the run.")]


def _foreseen(facts: RunFacts) -> tuple[float | None, float | None, float | None]:
    """Memory in GiB, seconds, and cost in USD."""
    memory, seconds, cost = (number(facts.predicted.get(k)) for k in ("memory_gib_per_device", "seconds", "cost_usd"))
    return memory, seconds, cost


def _predicted_row(name: str, facts: RunFacts) -> list[Cell]:
    memory, seconds, cost = _foreseen(facts)
    return [
        name,
        memory,
        facts.peak_memory_gib,
        _over(facts.peak_memory_gib, memory),
        seconds,
        facts.seconds,
        _over(facts.seconds, seconds),
        cost,
    ]


def _over(measured: float | None, predicted: float | None) -> float | None:
    return measured / predicted if measured is not None and predicted else None


def _parts(foreseen: list[tuple[str, RunFacts]]) -> list[Block]:
    """What the predicted memory of every stage consists of."""
    told = [(name, facts.predicted.get("memory_parts")) for name, facts in foreseen]
    rows = [
        (name, {key: number(value) or 0.0 for key, value in parts.items()})
        for name, parts in told
        if isinstance(parts, dict)
    ]
    names = list(dict.fromkeys(key for _, parts in rows for key in parts))
    if not names:
        return []
    totals = {key: sum(parts.get(key, 0.0) for _, parts in rows) for key in names}
    title = f"What the predicted memory consists of: mostly {max(totals, key=lambda key: totals[key])}"
    bars = [(name, [parts.get(key, 0.0) for key in names]) for name, parts in rows]
    labels = [key.replace("_", " ") for key in names]
    cells: list[list[Cell]] = [[name, key, parts[key]] for name, parts in rows for key in names if key in parts]
    columns = (Column("stage", "stage"), Column("part", "part"), Column("bytes", "bytes predicted", size, numeric=True))
    return [
        Figure(
            "predicted-parts", title, stacked("predicted-parts", bars, labels, size, alt=title), "Bytes of a device."
        ),
        Table("predicted_parts", "Parts of the predicted memory", columns, cells, brief=False, collapsed=True),
    ]


def _assumptions(foreseen: list[tuple[str, RunFacts]]) -> list[Block]:
    """Every assumption once, with the stages that rest on it where these aren't all."""
    stages_of: dict[str, list[str]] = {}
    for name, facts in foreseen:
        told = facts.predicted.get("assumptions")
        for words in told if isinstance(told, list) else []:
            stages_of.setdefault(str(words), []).append(name)
    if not stages_of:
        return []
    lines = [
        words.rstrip(".") + ("." if len(names) == len(foreseen) else f" ({', '.join(names)}).")
        for words, names in stages_of.items()
    ]
    said = f"The predictions rest on {plural(len(lines), 'assumption')}:"
    return [Paragraph("\n".join([said, *[f"· {line}" for line in lines]]))]
