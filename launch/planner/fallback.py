"""The largest layout that fits where fewer devices are than a recipe asks for; the global batch stays what it is.

Fewer data-parallel ranks each accumulate more micro-batches, so a step is the same step, only slower. What cuts the
model (tensor, pipeline, context) stays where a device could not hold the model without it, or where nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.config import load, parse, resolve
from kit.errors import RunFailure, UserError
from kit.layout import Layout
from kit.run.directory import RunDirectory
from kit.target import Target
from kit.units import format_bytes
from launch.machine import accelerator_count
from launch.origin import find_parent
from launch.plan import Plan, capacity, make_plan
from launch.planner.legality import SIZES, distance, nearest_layouts
from launch.planner.memory import predict_memory
from launch.planner.models import ENOUGH, UnknownModel
from launch.planner.prediction import GIB, device_memory_gib, workload_of
from launch.planner.workload import Workload
from launch.recipe_files import find_recipe, find_target
from launch.stages import stage_called

CUTS = ("tensor", "pipeline", "context")
AXES = ("data", *CUTS)
EVERY = 1_000_000
Needs = Callable[[Layout, int], float | None]


@dataclass(frozen=True)
class Choice:
    """A layout and a micro-batch that fit."""

    layout: Layout
    micro_samples: int


def fall_back(
    recipe: str,
    target: str = "laptop",
    sets: Sequence[str] = (),
    parents: Mapping[str, str] | None = None,
    target_sets: Sequence[str] = (),
    runs: Path = Path("runs"),
) -> tuple[list[str], list[str]]:
    """The assignments with which a recipe fits a target.

    Returns:
        `sets` and what had to be added, and in words what that changes; `sets` and no words where all fits as it is.

    Raises:
        UserError: The recipe or the target is wrong in itself.
        RunFailure: No layout fits.
    """
    path = find_recipe(recipe)
    data = resolve(path, sets)
    wanted = parse(Layout, data.get("layout") or {}, str(path))
    settled = load(Target, find_target(target), target_sets).settle(wanted.world_size, accelerator_count())
    places = capacity(settled)
    if not stage_called(data.get("stage"), str(path)).parallel or places is None or wanted.world_size <= places:
        return list(sets), []
    plan = make_plan(recipe, target, sets, parents, [*target_sets, ENOUGH])
    choice, words = _chosen(replace(plan, target=settled), _finished(plan, runs), places)
    changed = _changes(plan, choice)
    return [*sets, *changed], words


def fallback(
    layout: Layout,
    config: Mapping[str, Any],
    places: int,
    sizes: Mapping[str, int],
    vocab: int | None,
    *,
    fits: Callable[[Layout, int], bool] | None,
    even: Callable[[int], bool] = lambda ranks: True,
) -> Choice | None:
    """The largest legal layout on at most `places` devices, the nearest to `layout` among equally large ones.

    Args:
        layout: What the recipe asks for.
        config: The recipe as plain data: engine, data.
        places: Devices that there are.
        sizes: Of the model, by the names of legality's SIZES.
        vocab: Of the model, where it is known.
        fits: Whether a device can hold its part under a layout and a micro-batch; None: nobody knows, so what cuts the
            model is kept.
        even: Whether so many ranks can be spread evenly over the hosts.
    """
    asked = int((config.get("data") or {}).get("micro_batch_samples") or 1)
    for micro in _halves(asked) if fits else [asked]:
        legal = {
            ranks: _legal(ranks, layout, config, micro, sizes, vocab) for ranks in range(1, places + 1) if even(ranks)
        }
        # An axis that the recipe doesn't cut so finely is cut finer only where nothing else fits.
        for finer in (False, True):
            for ranks in sorted(legal, reverse=True):
                good = [other for other in legal[ranks] if (finer or not _cuts_finer(other, layout))]
                good = [other for other in good if (fits(other, micro) if fits else _cuts_alike(layout, other))]
                if good:
                    return Choice(min(good, key=lambda other: _strangeness(layout, other)), micro)
    return None


def accumulation(config: Mapping[str, Any], layout: Layout, micro_samples: int) -> int:
    """Micro-batches that one rank computes for one optimizer step."""
    return int(config["data"]["global_batch_samples"]) // (layout.data * micro_samples)


def _strangeness(wanted: Layout, other: Layout) -> tuple[int, float]:
    return sum(wanted.degree(axis) != other.degree(axis) for axis in CUTS), distance(wanted, other)


def _cuts_alike(one: Layout, other: Layout) -> bool:
    return all(one.degree(axis) == other.degree(axis) for axis in CUTS)


def _cuts_finer(one: Layout, other: Layout) -> bool:
    return any(one.degree(axis) > other.degree(axis) for axis in CUTS)


def _halves(asked: int) -> Iterator[int]:
    """The recipe's micro-batch, then half of it, and so on while it halves evenly."""
    yield asked
    while asked % 2 == 0:
        asked //= 2
        yield asked


def _legal(
    ranks: int, layout: Layout, config: Mapping[str, Any], micro: int, sizes: Mapping[str, int], vocab: int | None
) -> list[Layout]:
    """The layouts of so many ranks under which the model can be cut and the global batch multiplies out."""
    data = dict(config.get("data") or {}) | {"micro_batch_samples": micro}
    if not sizes:
        cut = layout.world_size // layout.data
        portion = ranks // cut * micro
        whole = ranks % cut == 0 and portion and int(data.get("global_batch_samples") or portion) % portion == 0
        return [layout.model_copy(update={"data": ranks // cut})] if whole else []
    like = layout.model_copy(update={"data": ranks, "tensor": 1, "pipeline": 1, "context": 1})
    return nearest_layouts(like, {**config, "data": data}, sizes, vocab, most=EVERY)


def _chosen(plan: Plan, parents: Mapping[str, RunDirectory], places: int) -> tuple[Choice, list[str]]:
    layout = plan.layout
    assert layout is not None, "a parallel stage has a layout"
    load_: Workload | None
    try:
        load_, model = workload_of(plan, parents)
        sizes, vocab = {key: int(getattr(model.shape, key)) for key in SIZES}, model.shape.vocab
    except UnknownModel:
        load_, sizes, vocab = None, {}, None
    needs = _needs_of(plan, load_)
    room = {ranks: _room_gib(plan, ranks) for ranks in range(1, places + 1)}
    known = load_ is not None and room[1] is not None

    def fits(other: Layout, micro: int) -> bool:
        needed, here = needs(other, micro), room[other.world_size]
        return needed is None or here is None or needed <= here

    choice = fallback(
        layout, plan.config, places, sizes, vocab, fits=fits if known else None, even=_even_over_hosts(plan.target)
    )
    if choice is None:
        raise _nothing_fits(plan, layout, places, known)
    return choice, _words(plan, choice, needs if known else None)


def _needs_of(plan: Plan, load_: Workload | None) -> Needs:
    def needs(layout: Layout, micro: int) -> float | None:
        if load_ is None:
            return None
        memory = predict_memory(replace(load_, layout=layout, micro_samples=micro))
        return None if memory is None else memory.total / GIB

    return needs


def _room_gib(plan: Plan, ranks: int) -> float | None:
    """A device's memory; None on remote targets: their hosts are not asked here."""
    return None if plan.target.remote else device_memory_gib(replace(plan, layout=Layout(data=ranks)))


def _even_over_hosts(target: Target) -> Callable[[int], bool]:
    def even(ranks: int) -> bool:
        try:
            return target.hosts_for(ranks) > 0
        except UserError:
            return False

    return even


def _finished(plan: Plan, runs: Path) -> dict[str, RunDirectory]:
    """The parents that are there: they know the model best."""
    found = {}
    for name, reference in plan.parents.items():
        try:
            found[name] = find_parent(runs, name, reference, plan.recipe)
        except UserError:
            continue
    return found


def _changes(plan: Plan, choice: Choice) -> list[str]:
    assert plan.layout is not None
    before, after = plan.layout.model_dump(), choice.layout.model_dump()
    changed = [f"layout.{key}={str(value).lower()}" for key, value in after.items() if value != before[key]]
    micro = (plan.config.get("data") or {}).get("micro_batch_samples")
    if micro not in (None, choice.micro_samples):
        changed.append(f"data.micro_batch_samples={choice.micro_samples}")
    return changed


def _words(plan: Plan, choice: Choice, needs: Needs | None) -> list[str]:
    """One line for every change, and what it means."""
    before, after = plan.layout, choice.layout
    assert before is not None
    lines = [
        f"layout.{axis} {before.degree(axis)} -> {after.degree(axis)}"
        for axis in AXES
        if before.degree(axis) != after.degree(axis)
    ]
    if before.interleave != after.interleave:
        lines.append(f"layout.interleave {before.interleave} -> {after.interleave}")
    if before.sequence != after.sequence:
        lines.append(f"layout.sequence {str(before.sequence).lower()} -> {str(after.sequence).lower()}")
    data = plan.config.get("data") or {}
    asked = int(data.get("micro_batch_samples") or 1)
    if asked != choice.micro_samples:
        lines.append(f"data.micro_batch_samples {asked} -> {choice.micro_samples}")
    if "global_batch_samples" in data:
        was, now = accumulation(plan.config, before, asked), accumulation(plan.config, after, choice.micro_samples)
        lines[0] += f": global batch {data['global_batch_samples']} kept, {_times(now, was)}"
    lines.append(f"{before.world_size} ranks -> {after.world_size}, {_memory(needs, choice)}")
    return lines


def _times(now: int, was: int) -> str:
    if now == was:
        return f"accumulation {now} as before"
    return f"{now / was:g} times the accumulation ({was} -> {now} micro-batches a step)"


def _memory(needs: Needs | None, choice: Choice) -> str:
    needed = needs(choice.layout, choice.micro_samples) if needs else None
    if needed is None:
        return "memory not checked: nothing here knows the model or the hosts' devices, so what cuts the model is kept"
    return f"about {format_bytes(needed * GIB)} a device by prediction"


def _nothing_fits(plan: Plan, layout: Layout, places: int, known: bool) -> RunFailure:
    reason = "by the memory that is predicted" if known else "without changing what cuts the model"
    return RunFailure(
        f"no layout of {plan.recipe} fits on {places} devices {reason}; it asks for {layout.describe()}",
        expected=f"a legal layout of at most {places} ranks that keeps the global batch",
        action="set the layout yourself with --set layout.AXIS=DEGREE, use a smaller model, or more devices",
    )
