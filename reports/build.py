"""Builds the report of a run directory: report.html, report.md, summary.json, tables as CSV, figures as SVG."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from kit.files import atomic_write
from reports.compose import compose
from reports.document import Table
from reports.html import render_html
from reports.markdown import render_markdown
from reports.story import Story, read_story
from reports.summary import summarise


def build_report(run_dir: Path) -> dict[str, Any]:
    """Writes RUN/report/ and returns the summary.

    A data_prep run gets a data report, a pretrain or evaluate run a report that includes what it rests on, a chain
    the whole story with the scaling-efficiency report. Every file is whole or absent; an older report is replaced.

    Raises:
        UserError: `run_dir` is no run directory, or one of its files can't be read.
        RunFailure: The disk is full.
    """
    story = read_story(Path(run_dir))
    summary = _write_summary(story)
    report = compose(story, summary)
    folder = story.subject.run.report
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for table in report.tables():
        atomic_write(folder / "tables" / f"{table.name}.csv", as_csv(table))
    for figure in report.figures():
        atomic_write(folder / "figures" / f"{figure.name}.svg", figure.svg + "\n")
    atomic_write(folder / "report.html", render_html(report))
    atomic_write(folder / "report.md", render_markdown(report))
    return summary


def build_summary(run_dir: Path) -> dict[str, Any]:
    """Writes RUN/report/summary.json alone, which takes no time, and returns it. Errors as of `build_report`."""
    return _write_summary(read_story(Path(run_dir)))


def _write_summary(story: Story) -> dict[str, Any]:
    summary = summarise(story)
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write(story.subject.run.report / "summary.json", text + "\n")
    return summary


def as_csv(table: Table) -> str:
    """Returns a table's raw values as CSV, the units in the heads; what was not measured is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows(table.rows)
    return stream.getvalue()
