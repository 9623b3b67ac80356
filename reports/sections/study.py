"""What a scaling study adds to the efficiency section: its figures, the parts of a step, costs, what was left out."""

from typing import Any

from reports.document import Block, Figure, Paragraph
from reports.figures.study import efficiency_over_ranks, line_name, step_parts
from reports.formats import percent, plural
from reports.scaling import CONFIDENCE, ScalingPoint, link_names

MODES = ("strong", "weak")
LOWEST_PERCENT, HIGHEST_PERCENT = 0.0, 115.0


def study_figures(points: list[ScalingPoint]) -> list[Block]:
    """Efficiency over ranks by mode and link, then the parts of a step by link; neighbours stand side by side."""
    compared = [p for p in points if p.efficiency is not None]
    top = max([HIGHEST_PERCENT, *[105 * (p.efficiency or 0.0) for p in compared]])
    links = link_names(points)
    blocks = [_efficiency(points, mode, link, (LOWEST_PERCENT, top)) for mode in MODES for link in links]
    return [*[block for block in blocks if block], *part_figures(points)]


def _efficiency(points: list[ScalingPoint], mode: str, link: str, limits: tuple[float, float]) -> Figure | None:
    here = [p for p in points if p.link == link]
    mine = [p for p in here if p.mode == mode and p.efficiency is not None]
    if not mine:
        return None
    start = min(p.processes for p in here if p.mode == "baseline")
    most = max(p.processes for p in mine)
    best = max((p for p in mine if p.processes == most), key=lambda p: p.efficiency or 0.0)
    at = f" at {rate_words(best)}" if link else ""
    title = f"{mode.capitalize()} scaling{at}: {line_name(best)} reaches {percent(best.efficiency)} on {most} ranks"
    name = _name("scaling-efficiency", mode, link)
    rounds = sorted({p.rounds for p in mine})
    kept = "The same global batch on every number of ranks." if mode == "strong" else "The same batch per rank."
    bars = f" Bars: {CONFIDENCE}, n = {' or '.join(map(str, rounds))}." if rounds[-1] > 1 else ""
    if any(100 * (p.interval_high or 0.0) > limits[1] or (p.interval_low or 0.0) < 0 for p in mine):
        bars += " A bar that reaches the edge goes on beyond it: see the table."
    return Figure(name, title, efficiency_over_ranks(name, mine, start, limits, alt=title), f"{kept}{bars}")


def part_figures(points: list[ScalingPoint]) -> list[Block]:
    """Where the time of a step went, by link."""
    timed = [p for p in points if p.step_seconds]
    longest = max((p.step_seconds or 0.0 for p in timed), default=0.0)
    blocks: list[Block] = []
    for link in link_names(timed):
        mine = [p for p in timed if p.link == link]
        told = [p for p in mine if p.communication_share is not None]
        if not told:
            continue
        worst = max(told, key=lambda p: p.communication_share or 0.0)
        at = f" at {rate_words(worst)}" if link else ""
        title = f"Communication takes up to {percent(worst.communication_share)} of a step{at}: {worst.label}"
        name = _name("scaling-parts", link)
        several = len({p.mode for p in mine if p.mode in MODES}) > 1
        recipes = len({p.recipe for p in mine}) > 1
        rows = [(row_label(p, several, recipes), p) for p in mine]
        svg = step_parts(name, rows, longest, alt=title)
        blocks.append(Figure(name, title, svg, "Mean steady step, the mean over ranks; waiting is communication."))
    return blocks


def row_label(point: ScalingPoint, with_mode: bool, with_recipe: bool = False) -> str:
    """A short name for a bar: tensor 2, or tensor 2 weak."""
    split = [f"{axis} {getattr(point, axis)}" for axis in ("data", "tensor", "pipeline") if getattr(point, axis) > 1]
    words = " x ".join(split) or ("one rank" if point.processes == 1 else f"{point.processes} ranks")
    if point.zero_stage is not None:
        words = f"ZeRO-{point.zero_stage}, {words.removeprefix('data ')}"
        words += " ranks" if split else ""
    elif with_recipe and not split:
        words = f"{point.recipe.rpartition('/')[2].removesuffix('.yaml')}, {words}"
    return f"{words} {point.mode}" if with_mode and point.mode in MODES else words


def rate_words(point: ScalingPoint) -> str:
    """The link in a title: its rate, or else its name, and whether it is emulated."""
    rate = point.link_gigabits_per_second
    words = point.link if rate is None else f"{rate:g} Gbit/s" if rate >= 1 else f"{1000 * rate:g} Mbit/s"
    return f"{words} (emulated)" if point.link_emulated else words


def parts_words(points: list[ScalingPoint]) -> list[Block]:
    """How the parts of a step are meant."""
    if not any(p.step_seconds for p in points):
        return []
    words = (
        "Communication is the time that ranks are blocked in collectives (on CUDA: in NCCL kernels beside which "
        "nothing runs), the mean over ranks; waiting for a slower rank is in it, so imbalance is too. Computation is "
        "the rest of the optimizer step. Other is what no rate counts: the agreement to go on, bookkeeping, "
        "checkpoints."
    )
    blind = [p.label for p in points if p.step_seconds and p.communication_seconds is None]
    if blind:
        names = ", ".join(dict.fromkeys(blind))
        words += f" Not measured, and so part of computation: {names} (torch's DDP waits where Python can't see it)."
    return [Paragraph(words)]


def cost_words(points: list[ScalingPoint]) -> str:
    """What tokens cost, or why nobody can say."""
    priced = [p for p in points if p.usd_per_billion_tokens]
    if not priced:
        return "Cost per billion tokens: none, since no target names a price (usd_per_hour of one host)."
    cheapest = min(priced, key=lambda p: p.usd_per_billion_tokens or 0.0)
    words = (
        f"Cost per billion tokens: from ${cheapest.usd_per_billion_tokens:,.2f} ({cheapest.label}), the price of the "
    )
    words += "hosts of a point, used or not, over its tokens per hour."
    without = len(points) - len(priced)
    return f"{words} {plural(without, 'point')} without a price." if without else words


def left_out_notices(summary: dict[str, Any]) -> list[Block]:
    """The points that could not be measured."""
    rows = summary.get("scaling_left_out") or []
    return [Paragraph(f"Left out, {row['point']}: {row['reason']}.", "notice") for row in rows]


def _name(*words: str) -> str:
    """Of a figure's file: letters, digits and dashes."""
    text = "-".join(word for word in words if word).lower()
    return "".join(letter if letter.isalnum() else "-" for letter in text)
