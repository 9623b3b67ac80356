"""The arithmetic of the scaling-efficiency report: pure functions over measured step rates.

With n0 the smallest measured number of ranks of a series and R(n) the tokens per second on n ranks,

    speedup(n) = R(n) / R(n0)        efficiency(n) = speedup(n) / (n / n0)

Strong scaling keeps the global batch (Amdahl 1967): efficiency is the share of the ideal speed-up. Weak scaling keeps
the batch of each rank (Gustafson 1988): a step then does n / n0 times the work, so the same quotient of rates is
T(n0) / T(n), the share of the ideal step time. Which of the two a point is, its global batch says.

A series is what compares: one recipe on one link, with one number of threads. Runs of the same point are pooled: R is
the median over the steady steps of all of them. Where every point was measured in several rounds, that took turns, each
round gives an efficiency of its own. Then the point's efficiency is their mean, with Student's t interval over the
rounds (Student 1908): rounds, unlike steps of one run, show how much the machine itself varies.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kit.flops import mfu

MOST_WARM_UP_STEPS = 5
MOST_PEAK_DISAGREEMENT = 1.2
INTERVAL = "interquartile range of the steady steps"
CONFIDENCE = "95 % Student t interval of the mean over rounds"
DEFINITIONS = {
    "strong": "Strong scaling: the same model and the same global batch on more processes (Amdahl 1967).",
    "weak": "Weak scaling: the same model and the same batch on each of more processes (Gustafson 1988).",
}
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom; the last stands for all above."""


class StepTime(NamedTuple):
    """Where the time of one step went, seconds; `communication` None where it wasn't measured and is in `compute`."""

    compute: float
    communication: float | None
    data: float
    total: float


@dataclass(frozen=True)
class Measurement:
    """The step rates of one run.

    Attributes:
        rates: Tokens per second of the whole job, one value a step, in step order, warm-up steps included.
        times: The parts of the same steps; empty where not recorded.
        recipe: What was trained, as the report calls it: series of different recipes don't compare.
        zero_stage: Of ZeRO; None for other engines.
        hosts: Machines (or pods) that the ranks were spread over.
        kind: Of the target: local, ssh, kubernetes, aws.
        link: Between the hosts, as its owner named it; empty where not named.
        link_emulated: Whether a traffic shaper makes its rate.
        usd_per_hour: Of one host; None where no price is known.
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
    times: tuple[StepTime, ...] = ()
    recipe: str = ""
    zero_stage: int | None = None
    hosts: int = 1
    kind: str = "local"
    link: str = ""
    link_gigabits_per_second: float | None = None
    link_emulated: bool = False
    usd_per_hour: float | None = None
    threads_per_process: int | None = None
    global_batch_tokens: int | None = None
    parameters: int | None = None
    flops_per_token: float | None = None
    peak_flops_per_second: float | None = None

    @property
    def series(self) -> tuple[object, ...]:
        """What two runs must share to be compared."""
        return self.recipe, self.zero_stage, self.kind, self.link, self.link_gigabits_per_second

    @property
    def point(self) -> tuple[object, ...]:
        """What makes two runs the same point."""
        batch = self.global_batch_tokens
        return self.processes, self.data, self.tensor, self.pipeline, batch, self.threads_per_process, self.series

    @property
    def label(self) -> str:
        """The name of the point: "one process", "data parallel 2 x tensor parallel 2", "ZeRO-2, data parallel 2"."""
        axes = (("data", self.data), ("tensor", self.tensor), ("pipeline", self.pipeline))
        parts = [f"{axis} parallel {degree}" for axis, degree in axes if degree > 1]
        words = " x ".join(parts) or ("one process" if self.processes == 1 else f"{self.processes} processes")
        return words if self.zero_stage is None else f"ZeRO-{self.zero_stage}, {words}"


@dataclass(frozen=True)
class ScalingPoint:
    """One point of the scaling report. Ratios are None where no honest comparison exists; `note` then says why.

    Attributes:
        mode: "strong" or "weak" against the baseline; "baseline"; None where it doesn't compare.
        efficiency_low, efficiency_high: The lowest and the highest round.
        interval_low, interval_high: 95 % t interval of the efficiency; None with fewer than two rounds.
        step_seconds: Mean steady step, of the parts compute, communication, data and other (which is the rest:
            checkpoints, evaluation, bookkeeping, and is in no rate).
    """

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
    recipe: str = ""
    zero_stage: int | None = None
    mode: str | None = None
    rounds: int = 1
    interval_low: float | None = None
    interval_high: float | None = None
    hosts: int = 1
    kind: str = "local"
    link: str = ""
    link_gigabits_per_second: float | None = None
    link_emulated: bool = False
    step_seconds: float | None = None
    compute_seconds: float | None = None
    communication_seconds: float | None = None
    data_seconds: float | None = None
    other_seconds: float | None = None
    usd_per_billion_tokens: float | None = None

    @property
    def runs(self) -> int:
        """How many runs were pooled."""
        return len(self.run_ids)

    @property
    def communication_share(self) -> float | None:
        """Of the mean step."""
        if self.communication_seconds is None or not self.step_seconds:
            return None
        return self.communication_seconds / self.step_seconds


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


def mean_times(*runs: Sequence[StepTime]) -> StepTime | None:
    """The mean steady step of one run or of several.

    Where only some steps know their communication (profiled ones), the means are over these alone.
    """
    steady = [time for times in runs for time in times[warm_up_steps(len(times)) :]]
    known = [time for time in steady if time.communication is not None]
    if not steady:
        return None
    communication = statistics.mean(time.communication or 0.0 for time in known) if known else None
    used = known or steady
    parts = (statistics.mean(getattr(time, part) for time in used) for part in ("compute", "data", "total"))
    compute, data, total = parts
    return StepTime(compute, communication, data, total)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None of fewer than two values."""
    if len(values) < 2:
        return None
    quantile = T_975[min(len(values) - 1, len(T_975)) - 1]
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.mean(values)
    return middle - half, middle + half


def usd_per_billion_tokens(usd_per_hour: float | None, hosts: int, tokens_per_second: float | None) -> float | None:
    """What a billion tokens cost at that rate; None where no price is known."""
    if not usd_per_hour or not tokens_per_second:
        return None
    return usd_per_hour * hosts / (tokens_per_second * 3600) * 1e9


def scaling_points(measurements: Sequence[Measurement]) -> list[ScalingPoint]:
    """Returns one point a way of splitting, in the given order within each process count, with ratios to the baseline.

    Each series has a baseline of its own: the point with the fewest processes; of several with equally few, the
    fastest.
    """
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for measurement in sorted(measurements, key=lambda m: m.processes):
        groups.setdefault(measurement.point, []).append(measurement)
    pairs = [(runs, _bare_point(runs)) for runs in groups.values()]
    bases: dict[tuple[object, ...], tuple[list[Measurement], ScalingPoint]] = {}
    for runs, point in pairs:
        base = bases.get(runs[0].series)
        if point.tokens_per_second and (base is None or _before(point, base[1])):
            bases[runs[0].series] = runs, point
    found = [(runs, point, bases.get(runs[0].series)) for runs, point in pairs]
    return [_against(*base, runs, point) if base else point for runs, point, base in found]


def _before(point: ScalingPoint, other: ScalingPoint) -> bool:
    """Whether the point is the better baseline."""
    return (point.processes, -(point.tokens_per_second or 0.0)) < (other.processes, -(other.tokens_per_second or 0.0))


def _bare_point(runs: Sequence[Measurement]) -> ScalingPoint:
    found, first, times = spread(*(run.rates for run in runs)), runs[0], mean_times(*(run.times for run in runs))
    median = found.median if found else None
    point = ScalingPoint(
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
        recipe=first.recipe,
        zero_stage=first.zero_stage,
        rounds=len(runs),
        hosts=first.hosts,
        kind=first.kind,
        link=first.link,
        link_gigabits_per_second=first.link_gigabits_per_second,
        link_emulated=first.link_emulated,
        usd_per_billion_tokens=usd_per_billion_tokens(first.usd_per_hour, first.hosts, median),
    )
    return _with_times(point, times) if times else point


def _with_times(point: ScalingPoint, times: StepTime) -> ScalingPoint:
    known = times.compute + (times.communication or 0.0) + times.data
    return replace(
        point,
        step_seconds=times.total,
        compute_seconds=times.compute,
        communication_seconds=times.communication,
        data_seconds=times.data,
        other_seconds=max(0.0, times.total - known),
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
    ratio = point.processes / base_point.processes
    rounds = [speedup / ratio for speedup in _rounds(base, runs)]
    efficiency = statistics.mean(rounds) if rounds else point.tokens_per_second / base_point.tokens_per_second / ratio
    own = point is base_point
    bounds = None if own else interval(rounds)
    return replace(
        point,
        speedup=efficiency * ratio,
        efficiency=efficiency,
        efficiency_low=min(rounds) if len(rounds) > 1 else None,
        efficiency_high=max(rounds) if len(rounds) > 1 else None,
        interval_low=bounds[0] if bounds else None,
        interval_high=bounds[1] if bounds else None,
        baseline=base_point.label,
        mode="baseline" if own else _mode(base_point, point),
    )


def _rounds(base: Sequence[Measurement], runs: Sequence[Measurement]) -> list[float]:
    """The speed-up of every round; empty unless both were measured equally often."""
    if len(base) != len(runs):
        return []
    pairs = [(spread(run.rates), spread(other.rates)) for run, other in zip(runs, base, strict=True)]
    return [mine.median / its.median for mine, its in pairs if mine and its]


def _mode(base: ScalingPoint, point: ScalingPoint) -> str:
    return "strong" if base.global_batch_tokens == point.global_batch_tokens else "weak"


def _difference(base: Measurement, other: Measurement) -> str:
    """What makes two measurements incomparable, in words; empty where they compare as strong or as weak scaling."""
    mine, its = base.global_batch_tokens, other.global_batch_tokens
    grown = mine is not None and its is not None and mine * other.processes == its * base.processes
    pairs = (
        ("global batch tokens", mine, mine if grown else its),
        ("parameters", base.parameters, other.parameters),
        ("threads per process", base.threads_per_process, other.threads_per_process),
    )
    return "; ".join(f"{name} differ ({one} and {two})" for name, one, two in pairs if one != two)


def circumstances(points: Sequence[ScalingPoint]) -> str:
    """Says what the points were measured on, so that nobody takes them for another cluster's."""
    threads = {point.threads_per_process for point in points}
    each = threads.pop() if len(threads) == 1 else None
    told = f", with {each} thread{'' if each == 1 else 's'} per process in every point" if each else ""
    if all(point.hosts == 1 and point.kind == "local" for point in points):
        words = f"All processes of every point share one machine, its caches and its memory bandwidth{told}"
        return f"{words}: hosts are emulated, and no network lies between them."
    most = max(point.hosts for point in points)
    words = f"Ranks fill hosts: the points ran on up to {most} host{'' if most == 1 else 's'}{told}."
    links = [link_words(point) for point in points if point.link]
    return " ".join([words, *dict.fromkeys(links)])


def link_words(point: ScalingPoint) -> str:
    """A link with its rate, and whether it is real."""
    rate = point.link_gigabits_per_second
    words = f"Link “{point.link}”" + (f", {rate:g} Gbit/s" if rate else "")
    if point.link_emulated:
        return f"{words}: emulated, a traffic shaper makes its rate, and the hosts behind it may share one machine."
    return f"{words}, as its owner describes it."


def link_names(points: Iterable[ScalingPoint]) -> list[str]:
    """The links in order, each once; "" stands for no named link."""
    return list(dict.fromkeys(point.link for point in points))


def peak_disagreement(measurements: Sequence[Measurement]) -> float:
    """How far the peaks per process lie apart: the largest over the smallest, 1 where they agree or aren't known.

    Each run measures its own peak, so on a machine that does other work too the points' MFUs don't compare.
    """
    peaks = [m.peak_flops_per_second / m.processes for m in measurements if m.peak_flops_per_second]
    return max(peaks) / min(peaks) if peaks else 1.0
