"""First weights that don't depend on the layout: every tensor is drawn whole from a generator of its own."""

from __future__ import annotations

import hashlib
import math

import torch

from recipes.model.config import ModelConfig

RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight", "c_proj.weight")


def first_tensor(config: ModelConfig, seed: int, name: str) -> torch.Tensor:
    """The whole first value of one tensor, fp32 on the CPU, a function of (seed, Hugging Face name) alone.

    Norms are one and biases zero; matrices are normal with `init_std`, and those that write into the residual stream
    are scaled by 1/sqrt(2 layers) (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section
    2.3).
    """
    shape = config.tensor_shapes()[name]
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    std = config.init_std
    if name.endswith(RESIDUAL_OUTPUTS):
        std /= math.sqrt(2 * config.layers)
    return torch.empty(shape).normal_(0.0, std, generator=_generator(seed, name))


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
