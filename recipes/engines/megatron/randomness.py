"""Where dropout's random numbers come from: a pure function of the step and of what a rank computes.

Ranks that compute the same draw the same: tensor ranks, where activations are whole. Where activations are cut, and
between data ranks, context ranks and pipeline stages, they draw differently. As nothing is carried from step to step, a
checkpoint holds no random state, and a run that goes on draws what it would have drawn.
"""

from __future__ import annotations

import hashlib

from megatron.core import tensor_parallel

from kit.layout import Coordinates


def step_seed(seed: int, step: int, place: Coordinates) -> int:
    """What a step's random numbers begin with, the same on tensor ranks; 31 bits, as torch's generator uses 32."""
    words = f"{seed}:{step}:{place.data}:{place.context}:{place.pipeline}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "little") >> 1


def reseed(seed: int, step: int, place: Coordinates) -> None:
    """Starts a step's random numbers on this rank, before its first micro-batch."""
    # Megatron keeps a second generator, moved by the tensor rank, for regions that are cut.
    tensor_parallel.model_parallel_cuda_manual_seed(step_seed(seed, step, place), tp_rank=place.tensor)
