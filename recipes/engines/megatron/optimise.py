"""One step of megatron's optimizer, with a question asked between the gradient norm and the first change."""

from __future__ import annotations

from collections.abc import Callable

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from recipes.engines.megatron import cpu_shim


@torch.no_grad()
def gated_step(optimizer: MegatronOptimizer, clip: float, go: Callable[[float], bool]) -> tuple[bool, float]:
    """Clips and steps, if asked to. *Collective*: every rank.

    Args:
        optimizer: As `build_optimizer` makes it: a chain.
        clip: The largest norm of the gradient.
        go: Whether to step, given the norm before clipping; the same answer on every rank.

    Returns:
        Whether anything moved, and the norm. With fp16's loss scaling an overflow is a step left out too, norm inf.
    """
    with cpu_shim.cuda_names():
        if optimizer.prepare_grads():
            return False, float("inf")
        norm = float(optimizer.get_grad_norm())
        if not go(norm):
            return False, norm
        for part in optimizer.chained_optimizers:
            parameters = [] if getattr(part, "is_stub_optimizer", False) else part.get_parameters()
            if parameters:
                clip_grad_by_total_norm_fp32(parameters, max_norm=clip, total_norm=norm)
        optimizer.step_with_ready_grads()
    return True, norm
