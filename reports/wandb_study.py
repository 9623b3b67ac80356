"""A scaling study as a group of Weights & Biases runs: one for each point, and one with tables and plots of them all.

A view that may fail without harm: the report has every number. Offline by default: everything lies in STUDY/wandb until
`wandb sync` sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from reports.facts import RunFacts
from reports.scaling import ScalingPoint, spread
from reports.sections.study import row_label
from reports.story import Story, read_story
from reports.summary import chain_numbers, scaling_of

Mode = Literal["offline", "online"]

INIT_SECONDS = 20.0
NUMBERS = (
    *("processes", "hosts", "tokens_per_second", "speedup", "efficiency", "interval_low", "interval_high", "mfu"),
    *("step_seconds", "compute_seconds", "communication_seconds", "data_seconds", "other_seconds"),
    *("communication_share", "usd_per_billion_tokens", "steps_measured", "rounds"),
)
COLUMNS = ("point", "mode", "link", *NUMBERS)
PARTS = ("compute_seconds", "communication_seconds", "data_seconds", "other_seconds")


def log_study(path: Path, project: str, mode: Mode, say: Callable[[str], None]) -> list[str]:
    """Logs a study's points and their summary.

    Args:
        path: The study's run directory.
        project: Of Weights & Biases.
        mode: "offline" or "online".
        say: Takes a sentence where something failed.

    Returns:
        The ids of the W&B runs; fewer than all where one failed, and nothing else has come to harm then.
    """
    story = read_story(path)
    points = scaling_of(story)
    made: list[str] = []
    try:
        for number, point in enumerate(points):
            made.append(_log_point(story, point, f"{path.name}-{number:03d}", project, mode))
        made.append(_log_summary(story, points, f"{path.name}-summary", project, mode))
    except Exception as error:
        say(f"Warning: Weights & Biases took {len(made)} of {len(points) + 1} runs: {type(error).__name__}: {error}")
    return made


@contextmanager
def _wandb_run(story: Story, name: str, project: str, mode: Mode, **more: Any) -> Iterator[Any]:
    import wandb

    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, init_timeout=INIT_SECONDS, x_disable_stats=True
    )
    subject = story.subject
    run = wandb.init(
        project=project, group=subject.id, name=name, mode=mode, dir=str(subject.run.path), settings=settings, **more
    )
    try:
        yield run
    finally:
        run.finish()


def _log_point(story: Story, point: ScalingPoint, run_id: str, project: str, mode: Mode) -> str:
    """One run: the point's numbers as its summary, its rounds as its history."""
    config = {key: value for key, value in asdict(point).items() if key not in NUMBERS and key != "run_ids"}
    tags = ["scaling", *[word for word in (point.mode, point.link) if word]]
    with _wandb_run(
        story, point_name(point), project, mode, id=run_id, job_type="scaling-point", config=config, tags=tags
    ) as run:
        run.define_metric("round")
        run.define_metric("round/*", step_metric="round")
        for number, facts in enumerate(_runs_of(story, point), start=1):
            found = spread([rate for _, rate in facts.rates])
            if found:
                run.log({"round": number, "round/tokens_per_second": found.median})
        run.summary.update(_numbers(point))
    return run_id


def _log_summary(story: Story, points: Sequence[ScalingPoint], run_id: str, project: str, mode: Mode) -> str:
    """The run that holds all points: a table, and plots of efficiency and of the parts of a step."""
    import wandb

    study = {**story.study, "run_id": story.subject.id}
    headline = {key: value for key, value in chain_numbers(story).items() if isinstance(value, int | float | str)}
    with _wandb_run(story, "summary", project, mode, id=run_id, job_type="scaling-summary", config=study) as run:
        rows = [[point_name(point), point.mode, point.link, *_numbers(point).values()] for point in points]
        table = wandb.Table(columns=list(COLUMNS), data=rows)
        run.log({"scaling/points": table})
        run.log({"scaling/efficiency_by_point": wandb.plot.bar(table, "point", "efficiency", title="Efficiency")})
        for name in ("strong", "weak"):
            lines = _lines(points, name)
            if lines:
                plot = wandb.plot.line_series(
                    xs=[[n for n, _ in line] for line in lines.values()],
                    ys=[[efficiency for _, efficiency in line] for line in lines.values()],
                    keys=list(lines),
                    title=f"{name.capitalize()} scaling efficiency",
                    xname="ranks",
                )
                run.log({f"scaling/efficiency_{name}": plot})
        parts = [[point_name(p), key, getattr(p, key)] for p in points for key in PARTS if getattr(p, key) is not None]
        run.log({"scaling/step_parts": wandb.Table(columns=["point", "part", "seconds"], data=parts)})
        run.summary.update(headline)
    return run_id


def point_name(point: ScalingPoint) -> str:
    """The name of a point among all of its study."""
    return ", ".join(word for word in (row_label(point, with_mode=True), point.link) if word)


def _numbers(point: ScalingPoint) -> dict[str, Any]:
    return {key: getattr(point, key) for key in NUMBERS}


def _runs_of(story: Story, point: ScalingPoint) -> list[RunFacts]:
    return [facts for facts in story.scaling if facts.id in point.run_ids]


def _lines(points: Sequence[ScalingPoint], mode: str) -> dict[str, list[tuple[int, float]]]:
    """(ranks, efficiency) from the baseline on, by way of splitting and link."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        if point.mode == mode and point.efficiency is not None:
            zero = f"ZeRO-{point.zero_stage}" if point.zero_stage is not None else ""
            axes = [axis for axis in ("data", "tensor", "pipeline") if getattr(point, axis) > 1]
            name = ", ".join(word for word in (zero or " x ".join(axes), point.link) if word)
            start = min(p.processes for p in points if p.mode == "baseline" and p.link == point.link)
            lines.setdefault(name, [(start, 1.0)]).append((point.processes, point.efficiency))
    return lines
