"""The reproducibility section: exact commands, versions and resolved configurations."""

import shlex
from typing import Any

from kit.config import dump
from reports.document import Block, Cell, Column, Listing, Paragraph, Section, Table
from reports.facts import RunFacts
from reports.story import Story

VERSION_COLUMNS = (Column("package", "package", code=True), Column("version", "version", code=True))


def reproduce_section(story: Story, summary: dict[str, Any]) -> Section:
    """Returns the section that lets somebody do it again."""
    runs = _all_runs(story)
    blocks: list[Block] = []
    commands = [
        f"# {facts.stage}: {facts.id}\n{shlex.join(facts.manifest.command)}" for facts in runs if facts.manifest.command
    ]
    if commands:
        blocks.append(Listing("Commands", "\n\n".join(commands)))
    versions: dict[str, str] = {}
    for facts in runs:
        versions |= facts.manifest.versions
    if versions:
        rows: list[list[Cell]] = [[name, version] for name, version in sorted(versions.items())]
        blocks.append(Table("versions", "Versions", VERSION_COLUMNS, rows, brief=False))
    blocks += [
        Listing(f"Configuration of {facts.stage} ({facts.id})", dump(facts.config), collapsed=True)
        for facts in runs
        if facts.config
    ]
    if not blocks:
        blocks.append(Paragraph("The runs recorded neither commands nor versions nor configurations."))
    lead = "Every configuration below is complete and resolved: the file that the processes read."
    return Section("reproduce", "Do it again", lead, blocks)


def _all_runs(story: Story) -> list[RunFacts]:
    """The chain first, then every stage's run, each once."""
    found = {story.subject.id: story.subject} if story.subject.stage == "chain" else {}
    for entry in story.entries:
        if entry.facts:
            found.setdefault(entry.facts.id, entry.facts)
    return list(found.values())
