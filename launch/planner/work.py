"""How many floating-point operations a run does, by what kind of work they are.

A forward pass is a third of a convention's FLOPs per trained token (kit.flops); a backward pass is two thirds, one
for the gradients of activations and one for those of weights, which frozen matrices don't have (LoRA: Hu et al. 2021).
"""

from __future__ import annotations

from typing import NamedTuple

from kit.flops import forward_flops_per_token
from launch.planner.workload import Workload

TRAIN, FORWARD, GENERATE = "train", "forward", "generate"


class Work(NamedTuple):
    """A part of a run: how many tokens pass, and how many operations that is, over the whole job."""

    kind: str
    words: str
    tokens: float
    flops: float


def work_of(load: Workload, held_out_tokens: int | None = None) -> list[Work]:
    """The parts of a run; empty where nothing can be said before it has run.

    Args:
        load: The run.
        held_out_tokens: Tokens that an evaluation reads, where they are known.
    """
    if load.stage == "data_prep":
        return []
    if load.stage == "evaluate":
        tokens = float(held_out_tokens or 0) * load.models
        return [_work(load, FORWARD, "held-out text", tokens, 1)] if tokens else []
    if load.stage == "rlhf":
        return _alignment(load)
    sequences = 2 if load.stage == "reward" else 1
    tokens = float(load.steps * load.tokens_per_step * sequences)
    return [_work(load, TRAIN, "training", tokens, _passes(load)), *_validation(load)]


def _alignment(load: Workload) -> list[Work]:
    """PPO and GRPO answer, score and learn; DPO reads pairs, and its reference reads them too."""
    algorithm = load.parts.get("algorithm")
    samples = float(load.steps * load.global_samples)
    length = load.shape.sequence_length
    if algorithm == "dpo":
        tokens = 2 * samples * length
        return [
            _work(load, TRAIN, "training on pairs", tokens, _passes(load)),
            _work(load, FORWARD, "reference", tokens, 1),
        ]
    # The longest that an answer may be; the prompt fills the rest of the sequence.
    answers = samples * float(load.get("generation", "new_tokens", default=length))
    whole = samples * length
    epochs = int(load.get("ppo", "epochs", default=1)) if algorithm == "ppo" else 1
    judged = 0 if load.get("reward", "kind", default="rules") == "rules" else 1
    # PPO reads the answers again with the policy, too, for the probabilities before the update.
    readings = 1 + judged + (1 if algorithm == "ppo" else 0)
    return [
        _work(load, GENERATE, "answers", answers, 1),
        _work(load, FORWARD, "prompts, reference and scores", whole * readings, 1),
        _work(load, TRAIN, "training on answers", whole * epochs, _passes(load)),
    ]


def _validation(load: Workload) -> list[Work]:
    """Before and after training, and every so many steps between."""
    every = load.get("validation", "every_steps")
    samples = int(load.get("validation", "samples", default=0))
    times = 2 + ((load.steps - 1) // int(every) if every else 0)
    tokens = float(times * samples * load.shape.sequence_length)
    return [_work(load, FORWARD, "validation", tokens, 1)] if tokens else []


def _passes(load: Workload) -> int:
    """Forward passes that a training step is worth: 3, or 2 without the gradients of frozen matrices.

    One more where every layer's is done again (Korthikanti et al. 2022); attention's kernels do theirs again anyway.
    """
    return (3 if load.lora_rank is None else 2) + (load.recompute == "full")


def _work(load: Workload, kind: str, words: str, tokens: float, passes: int) -> Work:
    return Work(kind, words, tokens, tokens * passes * forward_flops_per_token(load.convention, load.shape))
