"""Reports of finished runs, as the verbs ask for them. Drawing is slow to import, and most verbs draw nothing."""

from __future__ import annotations

from typing import Any

from kit.errors import SlipwayError
from kit.run.directory import RunDirectory
from kit.run.events import RunState, state_of
from launch.console import Console


def build_report(run: RunDirectory) -> dict[str, Any]:
    """The report of a run or chain; returns its summary."""
    from reports.build import build_report as build

    return build(run.path)


def conclude(run: RunDirectory, console: Console) -> dict[str, Any]:
    """What a run that has just finished leaves in its folder: its summary, and for data the report.

    A report that cannot be built is said in words and changes nothing about the run.

    Returns:
        The summary; empty where the run has not finished, or its files lie elsewhere.
    """
    if state_of(run) != RunState.FINISHED:
        return {}
    try:
        if run.manifest().stage == "data_prep":
            summary = build_report(run)
            console.say(f"Report: {run.report / 'report.html'}")
            return summary
        from reports.build import build_summary

        return build_summary(run.path)
    except SlipwayError as error:
        console.say(f"The run is finished, its report could not be built: {error}")
        return {}
