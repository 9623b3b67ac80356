"""What megatron-core 0.16 needs to run where there is no CUDA. A no-op where there is.

Nothing of torch is changed for the whole process. The modules of `megatron.*` see a proxy of torch whose `cuda` answers
with the CPU; the two things that a proxy can't reach, methods of tensors, are changed only while `cuda_names` is open.
An Adam that keeps its step in the parameter group is put in wherever neither Transformer Engine nor Apex is there, on
CUDA too: megatron's checkpoint code fails on torch's per-parameter step.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recipes.engines.megatron.adam import GroupStepAdam

_FACTORIES = (
    "tensor",
    "zeros",
    "ones",
    "empty",
    "empty_like",
    "zeros_like",
    "ones_like",
    "full",
    "arange",
    "rand",
    "randn",
)
# Modules that megatron imports inside functions: they must be there before the proxies are put in.
_LAZY = (
    "megatron.core.models.gpt.gpt_model",
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.pipeline_parallel.schedules",
    "megatron.core.distributed.finalize_model_grads",
    "megatron.core.dist_checkpointing.serialization",
    "megatron.core.dist_checkpointing.strategies.torch",
    "megatron.core.dist_checkpointing.strategies.filesystem_async",
    "megatron.core.dist_checkpointing.strategies.fully_parallel",
    "megatron.core.dist_checkpointing.exchange_utils",
)


class _Proxy(types.ModuleType):
    """A module that answers some names itself and leaves the rest to another one."""

    def __init__(self, behind: types.ModuleType, own: dict[str, Any]) -> None:
        super().__init__(behind.__name__)
        self.__dict__["_behind"] = behind
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_behind"], name)


def install() -> None:
    """Loads megatron-core and makes it fit this machine. Safe to call again."""
    for module in _LAZY:
        importlib.import_module(module)
    _install_adam()
    if torch.cuda.is_available():
        return
    proxy = _torch_on_cpu()
    for name, loaded in list(sys.modules.items()):
        if name.startswith("megatron.") and getattr(loaded, "torch", None) is torch:
            loaded.__dict__["torch"] = proxy
    _install_random_state()


@contextmanager
def cuda_names() -> Iterator[None]:
    """While open, tensors call their types `torch.cuda.…` and are their own `.cuda()`.

    Megatron's optimizers choose by those names when they are built and when they clip.
    """
    if torch.cuda.is_available():
        yield
        return
    type_before, cuda_before = torch.Tensor.type, torch.Tensor.cuda

    def named(self: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        answer = type_before(self, *arguments, **keywords)
        return answer.replace("torch.", "torch.cuda.", 1) if isinstance(answer, str) else answer

    torch.Tensor.type, torch.Tensor.cuda = named, lambda self, *a, **k: self
    try:
        yield
    finally:
        torch.Tensor.type, torch.Tensor.cuda = type_before, cuda_before


@functools.cache
def _torch_on_cpu() -> types.ModuleType:
    cpu = torch.device("cpu")

    def nothing(*arguments: Any, **keywords: Any) -> None:
        return None

    random = _Proxy(torch.cuda.random, {"get_rng_state": _get_state, "set_rng_state": _set_state})
    cuda = {
        "current_device": lambda: cpu,
        "synchronize": nothing,
        "empty_cache": nothing,
        "manual_seed": torch.default_generator.manual_seed,
        "get_rng_state": _get_state,
        "set_rng_state": _set_state,
        "random": random,
    }
    factories = {name: _on_cpu(getattr(torch, name)) for name in _FACTORIES}
    return _Proxy(torch, {"cuda": _Proxy(torch.cuda, cuda), **factories})


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def on_cpu(*arguments: Any, **keywords: Any) -> Any:
        if str(keywords.get("device")).startswith("cuda"):
            keywords["device"] = torch.device("cpu")
        keywords.pop("pin_memory", None)
        return factory(*arguments, **keywords)

    return on_cpu


def _get_state(*arguments: Any, **keywords: Any) -> torch.Tensor:
    return torch.get_rng_state()


def _set_state(state: torch.Tensor, *arguments: Any, **keywords: Any) -> None:
    torch.set_rng_state(state)


def _install_random_state() -> None:
    # On CUDA model-parallel regions draw from a generator of their own; on the CPU there is one generator, and
    # megatron warns whenever it finds it moved.
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = _get_state
    random._set_cuda_rng_state = _set_state
    logging.getLogger(random.__name__).addFilter(lambda record: "CPU RNG state changed" not in str(record.msg))


def _install_adam() -> None:
    import megatron.core.optimizer as optimizer
    from megatron.core.optimizer import distrib_optimizer

    if optimizer.USING_PYTORCH_OPTIMIZER:
        optimizer.Adam, optimizer.USING_PYTORCH_OPTIMIZER = GroupStepAdam, False
        # It has the layout of Apex's FusedAdam, so megatron's code for that one is the right code.
        distrib_optimizer.Adam = GroupStepAdam
        distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_APEX_OPTIMIZER = True
