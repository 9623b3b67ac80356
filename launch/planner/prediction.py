"""What a run would take, put together: memory, time, money, and what they rest on. Stored in the run's manifest.

A prediction is a help and never a reason for a run not to start: what cannot be predicted is None, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from kit.errors import UserError
from kit.hardware import accelerator, cuda_device_names
from launch.plan import Plan
from launch.planner.history import Measured, newest_like
from launch.planner.legality import SIZES, nearest_layouts, written
from launch.planner.memory import Memory, predict_memory
from launch.planner.models import KnownModel, Parents, UnknownModel, find_model, held_out_tokens
from launch.planner.prices import Price, prices
from launch.planner.time_cost import Rate, accelerator_rate, cost_usd, processor_rate, seconds_of
from launch.planner.work import GENERATE, Work, work_of
from launch.planner.workload import Workload, read_workload

GIB = 1024**3
LOCAL_COST = "no price: the target is this machine"
ASSUMED = (
    "memory: Korthikanti et al. 2022 (activations), Rajbhandari et al. 2020 (states), measured table for the process",
)


def predict(plan: Plan, parents: Parents, root: Path) -> dict[str, Any]:
    """Everything that a manifest keeps of a prediction; never raises.

    Args:
        plan: What would run.
        parents: Parent's name -> its run, or why there is none.
        root: The folder of runs, where an earlier run of the same recipe is looked for.
    """
    empty: dict[str, Any] = {"memory_gib_per_device": None, "seconds": None, "cost_usd": None, "assumptions": []}
    try:
        return empty | _predict(plan, parents, root)
    except Exception as error:  # whatever it is, the run matters more
        words = getattr(error, "found", None) or f"{type(error).__name__}: {error}"
        return empty | {"reason": f"no prediction: {words}"}


def workload_of(plan: Plan, parents: Parents) -> tuple[Workload, KnownModel]:
    """A plan's workload, and the model that it is about.

    Raises:
        UnknownModel: Nothing says which model that is.
    """
    model = find_model(plan, parents)
    load = read_workload(plan.config, model.shape, plan.layout, plan.target.device)
    others = [name for name in plan.parents if name not in ("model", "data")]
    return (replace(load, models=1 + len(others)) if plan.stage == "evaluate" else load), model


def _predict(plan: Plan, parents: Parents, root: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    measured = None if plan.target.remote else newest_like(plan, root)
    assumptions: list[str] = []
    work: list[Work] = []
    steps = 0
    try:
        load, model = workload_of(plan, parents)
    except UnknownModel as error:
        told["reason"] = f"no prediction of memory: {error}"
    else:
        assumptions += [
            *ASSUMED,
            f"model: {model.shape.layers} layers, hidden {model.shape.hidden}, from {model.source}",
        ]
        memory = predict_memory(load)
        assert memory is not None, "a stage with a model needs memory"
        told |= memory_facts(memory) | _fit(plan, load, memory)
        work, steps = work_of(load, held_out_tokens(plan, parents)), load.steps
        told["flops"] = sum(part.flops for part in work) or None
        told["work"] = [part._asdict() for part in work]
        told |= {"steps": steps, "tokens": steps * load.tokens_per_step} if steps else {}
        if any(part.kind == GENERATE for part in work):
            assumptions.append("every sampled answer is as long as generation.new_tokens allows")
    seconds, words = _seconds(plan, work, measured, steps)
    assumptions.append(f"time: {words}")
    told |= _cost(plan, seconds)
    return told | {"seconds": seconds, "assumptions": assumptions}


def _cost(plan: Plan, seconds: float | None) -> dict[str, Any]:
    """What the hosts would cost for so long, where the target has a price."""
    price = plan.target.usd_per_hour
    if price is None:
        return {"cost_reason": "no price: the target has no usd_per_hour" if plan.target.remote else LOCAL_COST}
    if seconds is None:
        return {"cost_reason": "no price: the time is not known"}
    return {"cost_usd": round(seconds / 3600 * price * plan.target.hosts_for(plan.processes), 2)}


def memory_facts(memory: Memory) -> dict[str, Any]:
    """A memory prediction as plain data."""
    facts: dict[str, Any] = {
        "memory_gib_per_device": round(memory.total / GIB, 4),
        "memory_parts": dict(memory.parts),
    }
    if memory.offloaded:
        facts["offloaded_bytes"] = memory.offloaded
    if memory.place:
        facts["fullest_device"] = memory.place
    return facts


def _seconds(plan: Plan, work: Sequence[Work], measured: Measured | None, steps: int) -> tuple[float | None, str]:
    if measured is not None:
        return round(measured.seconds(steps), 1), f"as run {measured.run_id} took on this machine, step by step"
    if not work:
        return None, "not known before a first run: it depends on the data"
    rate = _rate(plan)
    if rate is None:
        return None, "no peak is known for this accelerator"
    return round(seconds_of(work, rate), 1), rate.words


def _rate(plan: Plan) -> Rate | None:
    precision = str(plan.config.get("precision") or "fp32")
    if plan.target.device == "cpu":
        threads = plan.target.threads_per_process
        assert isinstance(threads, int), "a plan's target is settled"
        return processor_rate(threads, plan.processes, precision)
    known = accelerator((cuda_device_names() or [""])[0])
    return None if known is None else accelerator_rate(known, plan.processes, precision)


def _fit(plan: Plan, load: Workload, memory: Memory) -> dict[str, Any]:
    """Whether a device has the memory, and which layout of as many would need least trouble if not."""
    room = device_memory_gib(plan)
    if room is None:
        return {"device_memory_gib": None}
    needed = memory.total / GIB
    facts: dict[str, Any] = {"device_memory_gib": round(room, 2), "fits": needed <= room}
    if needed > room:
        fitting = smaller_layout(plan, load, room)
        advice = f"nearest that fits: {fitting}" if fitting else "no layout of as many processes fits"
        facts["warning"] = f"needs {needed:.1f} GiB a device, and there are {room:.1f}; {advice}"
    return facts


def smaller_layout(plan: Plan, load: Workload, room_gib: float) -> str | None:
    """The nearest legal layout of as many processes, or else the largest micro-batch, that fits; in words."""
    shape = load.shape
    sizes = {key: int(getattr(shape, key)) for key in SIZES}
    for layout in nearest_layouts(load.layout, plan.config, sizes, shape.vocab, most=1000):
        if _needs(replace(load, layout=layout)) <= room_gib:
            return written(layout)
    micro = load.micro_samples // 2
    while micro:
        if (
            load.global_samples % (load.layout.data * micro) == 0
            and _needs(replace(load, micro_samples=micro)) <= room_gib
        ):
            return f"data.micro_batch_samples={micro}"
        micro //= 2
    return None


def _needs(load: Workload) -> float:
    memory = predict_memory(load)
    return 0.0 if memory is None else memory.total / GIB


def device_memory_gib(plan: Plan) -> float | None:
    """What one rank has: its accelerator's memory, or its share of this machine's; None: other machines."""
    if plan.target.remote:
        return None
    if plan.target.device == "cpu":
        return psutil.virtual_memory().total / GIB / plan.processes
    known = accelerator((cuda_device_names() or [""])[0])
    return None if known is None else known.memory_gib


def rented(plan: Plan, parents: Parents, only: Price | None = None) -> list[dict[str, Any]]:
    """What the run would be on accelerators that one can rent, one each rank; empty where that says nothing."""
    try:
        load, _ = workload_of(plan, parents)
        load = replace(load, device="cuda")
        memory, work = predict_memory(load), work_of(load, held_out_tokens(plan, parents))
    except (UnknownModel, UserError):
        return []
    if memory is None:
        return []
    return [_offer(price, load, memory, work) for price in ([only] if only else prices())]


def _offer(price: Price, load: Workload, memory: Memory, work: Sequence[Work]) -> dict[str, Any]:
    ranks = load.layout.world_size
    rate = accelerator_rate(price.device, ranks, load.precision) if work else None
    seconds = seconds_of(work, rate) if rate else None
    needed = memory.total / GIB
    return {
        "name": price.name,
        "devices": ranks,
        "memory_gib": price.device.memory_gib,
        "needed_gib": round(needed, 3),
        "fits": needed <= price.device.memory_gib,
        "seconds": None if seconds is None else round(seconds, 1),
        "cost_usd": None if seconds is None else cost_usd(seconds, ranks, price.usd_per_hour),
        "usd_per_hour": price.usd_per_hour,
        "offer": price.offer,
        "source": price.source,
        "date": price.date.isoformat(),
        "assumption": rate.words if rate else f"no rate for {load.precision}",
    }
