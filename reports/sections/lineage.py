"""What ran: the stages with their run ids, states, times and digests."""

from typing import Any

from reports.document import Block, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, StageEntry, Story
from reports.figures.efficiency import time_by_stage
from reports.formats import duration, gibibytes, short_digest

STAGE_COLUMNS = (
    Column("id", "stage"),
    Column("run_id", "run", code=True),
    Column("state", "state"),
    Column("seconds", "time", duration, numeric=True),
    Column("peak_memory_gib", "peak memory", gibibytes, numeric=True),
    Column("config_digest", "configuration", short_digest, code=True),
    Column("key", "reuse key", short_digest, code=True),
)


def lineage_section(story: Story, summary: dict[str, Any]) -> Section:
    """Returns the section on which runs made this result, and where their time went."""
    subject = story.subject
    blocks: list[Block] = []
    rows = [_row(entry) for entry in story.entries]
    note = "Digests are SHA-256, shortened here; the CSV has them in full."
    blocks.append(Table("stages", "Stages", STAGE_COLUMNS, rows, note=note))
    times = [
        (entry.id, entry.facts.seconds, _time_note(entry), "reused" if entry.reused else entry.role)
        for entry in story.entries
        if entry.facts and entry.facts.seconds
    ]
    if len(times) > 1:
        slowest = max(times, key=lambda row: row[1] or 0.0)
        total = sum(row[1] or 0.0 for row in times)
        title = f"{slowest[0]} took longest: {duration(slowest[1])} of {duration(total)}"
        caption = "Wall time of each stage from submission to its end, start-up included."
        caption += " Light blue: measurements of scaling." if any(kind == "scaling" for *_, kind in times) else ""
        reused = [entry.id for entry in story.entries if entry.reused]
        caption += f" Orange: reused from an earlier run ({', '.join(reused)})." if reused else ""
        bars = [(label, seconds or 0.0, note, kind) for label, seconds, note, kind in times]
        blocks.append(Figure("time", title, time_by_stage(bars, alt=title), caption))
    return Section("lineage", "What ran", _lead(subject), blocks)


def problem(facts: RunFacts) -> Paragraph | None:
    """Returns what a reader must know of a run that did not finish, or None."""
    if facts.state == "finished":
        return None
    failure = facts.failure
    if failure:
        parts = (("Found", "found"), ("Expected", "expected"), ("Do", "action"))
        told = "\n".join(f"{word}: {failure[key]}" for word, key in parts if failure.get(key))
        return Paragraph(f"The run {facts.id} failed.\n{told}".strip(), tone="notice")
    return Paragraph(
        f"The run {facts.id} is not finished: its state is “{facts.state}”. The numbers below are what it had recorded "
        "when this report was made.",
        tone="notice",
    )


def _lead(subject: RunFacts) -> str:
    manifest = subject.manifest
    commit = f"commit {manifest.git_commit[:12]}" if manifest.git_commit else "no commit recorded"
    if manifest.git_commit and manifest.git_diff_digest:
        commit += f" with uncommitted changes (diff {short_digest(manifest.git_diff_digest)})"
    return f"Made {manifest.created[:19].replace('T', ' ')} UTC from {commit}."


def _row(entry: StageEntry) -> list[str | float | None]:
    facts = entry.facts
    if facts is None:
        return [entry.id, entry.run_id or None, "no run directory", None, None, None, None]
    state = f"{facts.state}, reused" if entry.reused else facts.state
    manifest = facts.manifest
    return [entry.id, facts.id, state, facts.seconds, facts.peak_memory_gib, manifest.config_digest, manifest.key]


def _time_note(entry: StageEntry) -> str:
    seconds = duration(entry.facts.seconds if entry.facts else None)
    return f"{seconds} (reused)" if entry.reused else seconds
