"""A scaling study as it lies on disk: two links, three ways of splitting and ZeRO, strong and weak, three rounds."""

from __future__ import annotations

import json
from typing import Any

from kit.config import dump
from kit.metrics import JsonlSink
from kit.run.directory import RunDirectory
from kit.run.manifest import write_manifest

from .artifacts import finished_training, record

ROUNDS = (0.98, 1.0, 1.03)
LINKS = {
    "slow": {"name": "slow", "gigabits_per_second": 0.2, "emulated": True},
    "fast": {"name": "fast", "gigabits_per_second": 1.0, "emulated": True},
}
POINTS: dict[tuple[str, int], dict[str, float]] = {
    # axis, ranks -> link -> speed-up in the middle round
    ("data", 2): {"slow": 1.10, "fast": 1.70},
    ("tensor", 2): {"slow": 0.66, "fast": 1.24},
    ("pipeline", 2): {"slow": 1.50, "fast": 1.62},
    ("data", 4): {"slow": 1.48, "fast": 3.00},
    ("tensor", 4): {"slow": 0.52, "fast": 1.84},
    ("pipeline", 4): {"slow": 2.20, "fast": 2.72},
}
BATCH = 2048


def measure(
    runs: Any,
    link: str,
    axis: str,
    ranks: int,
    rate: float,
    batch: int = BATCH,
    zero: int | None = None,
    price: float = 3.0,
) -> RunDirectory:
    """One run of a point; communication takes what is missing from the ideal rate."""
    stage = "pretrain" if zero is None else "zero"
    run: RunDirectory = runs.bare(stage)
    if zero is not None:
        run.config_path.write_text(dump({"stage": stage, "name": "demo", "seed": 1, "zero": {"stage": zero}}))
    ideal = 1000.0 * ranks
    with JsonlSink(run.metrics_path) as sink:
        for step in range(1, 9):
            step_seconds = batch / rate
            communication = max(0.0, step_seconds - batch / ideal) if ranks > 1 else 0.0
            times = {
                "tokens": batch,
                "communication_seconds": communication,
                "data_seconds": 0.002,
                "compute_seconds": step_seconds - communication - 0.002,
                "step_seconds": step_seconds + 0.01,
            }
            sink.write(record(step, rate, 8).model_copy(update=times))
    told = finished_training(1, ranks)
    told |= {"layout": {name: ranks if name == axis else 1 for name in ("data", "tensor", "pipeline", "context")}}
    (run.artifacts / "training.json").write_text(json.dumps(told | {"global_batch_tokens": batch}))
    target: dict[str, Any] = {
        "kind": "ssh",
        "hosts": [f"host-{number}" for number in range(4)],
        "devices_per_host": 1,
        "device": "cpu",
        "threads_per_process": 1,
        "link": LINKS[link],
    }
    run.target_path.write_text(dump(target | ({"usd_per_hour": price} if price else {})))
    return run


def study(runs: Any, price: float = 3.0, left_out: list[dict[str, str]] | None = None) -> RunDirectory:
    """The whole study."""
    stages = []
    for number, noise in enumerate(ROUNDS, start=1):
        for link in LINKS:
            found = {f"one-{link}": measure(runs, link, "data", 1, 1000.0, price=price)}
            found[f"zero2-one-{link}"] = measure(runs, link, "data", 1, 900.0, zero=2, price=price)
            for (axis, ranks), speed in POINTS.items():
                rate = 1000.0 * (speed[link] + (noise - 1.0) * ranks)
                found[f"{axis}-{ranks}-{link}"] = measure(runs, link, axis, ranks, rate, price=price)
                weak = 1000.0 * ranks * (0.5 + 0.5 * speed[link] / ranks) * noise
                batch = BATCH * ranks
                found[f"{axis}-{ranks}-weak-{link}"] = measure(runs, link, axis, ranks, weak, batch, price=price)
            zero = 900.0 * POINTS["data", 2][link] * 0.9 * noise
            found[f"zero2-data-2-{link}"] = measure(runs, link, "data", 2, zero, zero=2, price=price)
            stages += [runs.stage(f"{name}-{number}", run, role="scaling") for name, run in found.items()]
    chain: RunDirectory = runs.bare("chain", stages=stages)
    chain.config_path.write_text(dump({"stage": "chain", "name": "scaling", "study": {"recipes": ["pretrain/demo"]}}))
    if left_out:
        manifest = chain.manifest()
        changed = manifest.model_copy(update={"plan": {**manifest.plan, "left_out": left_out}})
        write_manifest(chain, changed)
    return chain
