"""The arithmetic of the scaling-efficiency report: pure functions over measured step rates.

Strong scaling: the same model and the same global batch on more processes. With n0 the smallest measured process
count and R(n) the median tokens per second on n processes,

    speedup(n) = R(n) / R(n0)        efficiency(n) = speedup(n) / (n / n0)

so a point that doubles the processes and doubles the rate has efficiency 1. Runs of the same point are pooled: R is the
median over the steady steps of all of them. Where every point was measured in several rounds, the efficiency of each
round gives its range, which holds what the steps of a single run cannot show: how much the machine itself varies.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kit.flops import mfu

MOST_WARM_UP_STEPS = 5
MOST_PEAK_DISAGREEMENT = 1.2
INTERVAL = "interquartile range of the steady steps"


@dataclass(frozen=True)
class Measurement:
    """The step rates of one run.

    Attributes:
        rates: Tokens per second of the whole job, one value a step, in step order, warm-up steps included.
        global_batch_tokens: Tokens in one optimizer step over all processes; None where not recorded.
        flops_per_token: By the convention that the run recorded; None where not recorded.
        peak_flops_per_second: Of the whole job, all processes together; None where not recorded.
    """

    run_id: str
    data: int
    tensor: int
    pipeline: int
    processes: int
    rates: tuple[float, ...]
    threads_per_process: int | None = None
    global_batch_tokens: int | None = None
    parameters: int | None = None
    flops_per_token: float | None = None
    peak_flops_per_second: float | None = None

    @property
    def point(self) -> tuple[int, ...]:
        """What makes two runs the same point."""
        return self.processes, self.data, self.tensor, self.pipeline

    @property
    def label(self) -> str:
        """The name of the point: "one process", "data parallel 2", "data parallel 2 x tensor parallel 2"."""
        axes = (("data", self.data), ("tensor", self.tensor), ("pipeline", self.pipeline))
        parts = [f"{axis} parallel {degree}" for axis, degree in axes if degree > 1]
        if parts:
            return " x ".join(parts)
        return "one process" if self.processes == 1 else f"{self.processes} processes"


@dataclass(frozen=True)
class ScalingPoint:
    """One point of the scaling report. Ratios are None where no honest comparison exists; `note` then says why."""

    label: str
    processes: int
    data: int
    tensor: int
    pipeline: int
    threads_per_process: int | None
    tokens_per_second: float | None
    tokens_per_second_low: float | None
    tokens_per_second_high: float | None
    speedup: float | None
    efficiency: float | None
    efficiency_low: float | None
    efficiency_high: float | None
    baseline: str | None
    mfu: float | None
    steps_measured: int
    warm_up_steps: int
    global_batch_tokens: int | None
    run_ids: tuple[str, ...]
    note: str = ""

    @property
    def runs(self) -> int:
        """How many runs were pooled."""
        return len(self.run_ids)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a list of rates, and how many values went in and were left out before them."""

    low: float
    median: float
    high: float
    measured: int
    warm_up: int


def warm_up_steps(steps: int) -> int:
    """How many first steps to leave out: a quarter of them, at most MOST_WARM_UP_STEPS (allocation, first kernels)."""
    return min(MOST_WARM_UP_STEPS, steps // 4)


def spread(*runs: Sequence[float]) -> Spread | None:
    """Returns the median and quartiles of the steady rates of one run or of several, or None where there are none."""
    skipped = [warm_up_steps(len(rates)) for rates in runs]
    steady = sorted(rate for rates, first in zip(runs, skipped, strict=True) for rate in rates[first:])
    if not steady:
        return None
    if len(steady) == 1:
        return Spread(steady[0], steady[0], steady[0], 1, sum(skipped))
    low, median, high = statistics.quantiles(steady, n=4, method="inclusive")
    return Spread(low, median, high, len(steady), sum(skipped))


def scaling_points(measurements: Sequence[Measurement]) -> list[ScalingPoint]:
    """Returns one point a way of splitting, in the given order within each process count, with ratios to the baseline.

    The baseline is the point with the fewest processes; of several with equally few, the fastest.
    """
    groups: dict[tuple[int, ...], list[Measurement]] = {}
    for measurement in sorted(measurements, key=lambda m: m.processes):
        groups.setdefault(measurement.point, []).append(measurement)
    pairs = [(runs, _bare_point(runs)) for runs in groups.values()]
    rated = [pair for pair in pairs if pair[1].tokens_per_second]
    if not rated:
        return [point for _, point in pairs]
    base, base_point = min(rated, key=lambda pair: (pair[1].processes, -(pair[1].tokens_per_second or 0.0)))
    return [_against(base, base_point, runs, point) for runs, point in pairs]


def _bare_point(runs: Sequence[Measurement]) -> ScalingPoint:
    found, first = spread(*(run.rates for run in runs)), runs[0]
    median = found.median if found else None
    return ScalingPoint(
        label=first.label,
        processes=first.processes,
        data=first.data,
        tensor=first.tensor,
        pipeline=first.pipeline,
        threads_per_process=first.threads_per_process,
        tokens_per_second=median,
        tokens_per_second_low=found.low if found else None,
        tokens_per_second_high=found.high if found else None,
        speedup=None,
        efficiency=None,
        efficiency_low=None,
        efficiency_high=None,
        baseline=None,
        mfu=_mfu(runs, median),
        steps_measured=found.measured if found else 0,
        warm_up_steps=found.warm_up if found else 0,
        global_batch_tokens=first.global_batch_tokens,
        run_ids=tuple(run.run_id for run in runs),
        note="" if found else "no step was measured",
    )


def _mfu(runs: Sequence[Measurement], tokens_per_second: float | None) -> float | None:
    per_token = runs[0].flops_per_token
    peaks = [run.peak_flops_per_second for run in runs if run.peak_flops_per_second]
    return (
        mfu(tokens_per_second, per_token, statistics.mean(peaks)) if tokens_per_second and per_token and peaks else None
    )


def _against(
    base: Sequence[Measurement], base_point: ScalingPoint, runs: Sequence[Measurement], point: ScalingPoint
) -> ScalingPoint:
    if point.tokens_per_second is None or base_point.tokens_per_second is None:
        return point
    difference = next((words for run in runs for other in base if (words := _difference(other, run))), "")
    if difference:
        return replace(point, note=f"not compared with {base_point.label}: {difference}")
    speedup = point.tokens_per_second / base_point.tokens_per_second
    ratio = point.processes / base_point.processes
    rounds = _rounds(base, runs)
    low, high = (min(rounds) / ratio, max(rounds) / ratio) if len(rounds) > 1 else (None, None)
    return replace(
        point,
        speedup=speedup,
        efficiency=speedup / ratio,
        efficiency_low=low,
        efficiency_high=high,
        baseline=base_point.label,
    )


def _rounds(base: Sequence[Measurement], runs: Sequence[Measurement]) -> list[float]:
    """The speed-up of every round; empty unless both were measured equally often."""
    if len(base) != len(runs):
        return []
    pairs = [(spread(run.rates), spread(other.rates)) for run, other in zip(runs, base, strict=True)]
    return [mine.median / its.median for mine, its in pairs if mine and its]


def _difference(base: Measurement, other: Measurement) -> str:
    """What makes two measurements incomparable as strong scaling, in words; empty where they compare."""
    pairs = (
        ("global batch tokens", base.global_batch_tokens, other.global_batch_tokens),
        ("parameters", base.parameters, other.parameters),
        ("threads per process", base.threads_per_process, other.threads_per_process),
    )
    return "; ".join(f"{name} differ ({mine} and {its})" for name, mine, its in pairs if mine != its)


def circumstances(points: Sequence[ScalingPoint]) -> str:
    """Says what the points were measured on, so that nobody takes them for a cluster's."""
    threads = {point.threads_per_process for point in points}
    words = "All processes of every point share one machine, its caches and its memory bandwidth"
    if len(threads) == 1 and (each := threads.pop()):
        words += f", with {each} thread{'' if each == 1 else 's'} per process in every point"
    return f"{words}: hosts are emulated, and no network lies between them."


def peak_disagreement(measurements: Sequence[Measurement]) -> float:
    """How far the peaks per process lie apart: the largest over the smallest, 1 where they agree or aren't known.

    Each run measures its own peak, so on a machine that does other work too the points' MFUs don't compare.
    """
    peaks = [m.peak_flops_per_second / m.processes for m in measurements if m.peak_flops_per_second]
    return max(peaks) / min(peaks) if peaks else 1.0
