"""What becomes of steps that go wrong: a loss or a gradient that is not a number, or a loss far above the last ones."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from enum import StrEnum

from kit.errors import RunFailure, UserError
from recipes.engines.protocol import StepResult
from recipes.training.config import InstabilityConfig

_NOTE = "instability."
_CALMER = "a lower optimizer.learning_rate or a longer schedule.warmup_steps"


class Fault(StrEnum):
    """Why a step was left out."""

    NOT_A_NUMBER = "not a number"
    SPIKE = "spike"
    OVERFLOW = "overflow of the loss scale"


class Unstable(RunFailure):
    """Training ends because of its numbers, on every rank in the same step; what was checkpointed before is good."""


class Watch:
    """Judges one step after another. All that it decides from is the same on every rank, so its decisions are too.

    Args:
        config: The recipe's policy.

    Attributes:
        skipped_steps: Steps left out since the beginning of the run, those before a resume included.
        fault: Why the last step was left out; None where it was not.
    """

    def __init__(self, config: InstabilityConfig) -> None:
        self._config = config
        self._losses: deque[float] = deque(maxlen=config.window)
        self._in_a_row = 0
        self._asked = False
        self.skipped_steps = 0
        self.fault: Fault | None = None

    def gate(self, loss: float, norm: float) -> bool:
        """Whether the optimizer may do the step: see `recipes.engines.protocol.Gate`."""
        self._asked = True
        return self._fault_of(loss, norm) is None

    def judge(self, step: int, result: StepResult) -> None:
        """Takes note of a step that the engine has done or left out.

        Raises:
            Unstable: If the policy is to stop, the engine has already done a step that is bad, or `most_skips` steps
                in a row were left out.
        """
        fault, asked, self._asked = self._fault_of(result.loss, result.grad_norm), self._asked, False
        if result.skipped and not asked and math.isfinite(result.loss):
            # fp16: the engine itself left the step out, and lowers its loss scale until the gradient fits.
            fault = Fault.OVERFLOW
        self.fault = fault
        if fault is None:
            self._losses.append(result.loss)
            self._in_a_row = 0
            return
        if fault is not Fault.OVERFLOW:
            if self._config.action == "stop" or not result.skipped:
                raise self._stop(step, result, fault)
            self._in_a_row += 1
        self.skipped_steps += 1
        if self._in_a_row >= self._config.most_skips:
            raise self._too_many(step, result)

    def notes(self) -> dict[str, float]:
        """What a resumed run needs to decide as this one would."""
        numbers = {"skipped_steps": float(self.skipped_steps), "skipped_in_a_row": float(self._in_a_row)}
        if self._config.spike_factor is not None:
            numbers |= {f"loss_{place}": loss for place, loss in enumerate(self._losses)}
        return {_NOTE + name: number for name, number in numbers.items()}

    def take_back(self, notes: Mapping[str, float]) -> dict[str, float]:
        """Goes on from the notes of a checkpoint; returns those that aren't its own."""
        own = {name.removeprefix(_NOTE): number for name, number in notes.items() if name.startswith(_NOTE)}
        self.skipped_steps = int(own.get("skipped_steps", 0))
        self._in_a_row = int(own.get("skipped_in_a_row", 0))
        places = range(self._config.window)
        self._losses.extend(own[f"loss_{place}"] for place in places if f"loss_{place}" in own)
        return {name: number for name, number in notes.items() if not name.startswith(_NOTE)}

    def _fault_of(self, loss: float, norm: float) -> Fault | None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return Fault.NOT_A_NUMBER
        limit = self._limit()
        return Fault.SPIKE if limit is not None and loss > limit else None

    def _limit(self) -> float | None:
        """Above which a loss is a spike; None before the window is full."""
        factor = self._config.spike_factor
        if factor is None or len(self._losses) < self._config.window:
            return None
        return factor * statistics.median(self._losses)

    def _stop(self, step: int, result: StepResult, fault: Fault) -> Unstable:
        limit = self._limit()
        spike = fault is Fault.SPIKE and limit is not None
        return Unstable(
            f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}",
            expected=f"a loss of at most {limit:.4g}" if spike else "finite numbers",
            action="`slipway resume` repeats the steps since the last checkpoint, which is good. If it ends here "
            f"again, start anew with instability.action=skip, {_CALMER}",
        )

    def _too_many(self, step: int, result: StepResult) -> Unstable:
        return Unstable(
            f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}; {self._in_a_row} steps in a row were "
            "left out",
            expected=f"fewer than instability.most_skips {self._config.most_skips}",
            action="the weights are as before the first of them: look at the data of these steps (events.jsonl has "
            f"their samples), or start anew with {_CALMER}",
        )


def set_gate(watch: Watch, config: InstabilityConfig, learner: object, name: str) -> None:
    """Lets the watch decide before the learner's optimizer moves anything.

    Raises:
        UserError: If steps are to be skipped, and the learner can't leave one out.
    """
    if hasattr(learner, "gate"):
        learner.gate = watch.gate
    elif config.action == "skip":
        raise cannot_skip(name)


def cannot_skip(name: str) -> UserError:
    """What to say where a bad step shows only after the optimizer has done it."""
    return UserError(
        f"instability.action is skip, and {name} does a step before its numbers are known",
        expected="stop",
        action="set instability.action=stop, or use engine=megatron or engine=reference in a stage that has them",
    )


def check_finite(step: int, loss: float, grad_norm: float) -> None:
    """The policy where nothing can be left out: stop.

    Raises:
        Unstable: If one of the two is infinite or not a number.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    raise Unstable(
        f"step {step}: loss {loss}, gradient norm {grad_norm}",
        expected="finite numbers",
        action="lower optimizer.learning_rate or raise schedule.warmup_steps; resuming repeats the steps since the "
        "last checkpoint",
    )
