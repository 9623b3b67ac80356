"""Checkpoints of the megatron engine, in megatron's own sharded format.

Every tensor is stored whole-model under a key of its own, so that any other layout can read it: weights by their name
with the layer's global number, Adam's moments as `optimizer.state.<moment>.<weight's key>`, whether or not the
optimizer was distributed. In fp32 the weights are the master weights, so they are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch.distributed.checkpoint import CheckpointException

from kit.errors import UserError
from recipes.checkpoint.writing import Writing
from recipes.engines.megatron import cpu_shim, in_process_writer

PER_LAYER = {"non_homogeneous_layers": True}
MOMENTS = ("exp_avg", "exp_avg_sq")
MASTER = "param"
"""The fp32 copy of a weight that trains in fewer bits."""

Tensors = dict[str, torch.Tensor]


class Kept(NamedTuple):
    """One weight of this rank and what its optimizer keeps of it, in the weight's shape."""

    weight: torch.nn.Parameter
    state: Tensors


class ShardedState:
    """The state of one rank's chunks and optimizer.

    Args:
        chunks: This rank's pipeline chunks, bare.
        optimizer: The optimizer over them.
        replicas: The ranks that hold the same weights; they share the writing.
    """

    def __init__(self, chunks: list[GPTModel], optimizer: MegatronOptimizer, replicas: dist.ProcessGroup) -> None:
        self._chunks = chunks
        self._parts = [
            part
            for part in getattr(optimizer, "chained_optimizers", [optimizer])
            if not getattr(part, "is_stub_optimizer", False)
        ]
        strategy = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1)
        shared = replicas.size() > 1
        self._strategy = FullyParallelSaveStrategyWrapper(strategy, replicas, True) if shared else strategy
        self._checked = False

    def save(self, folder: Path) -> Writing:
        """Copies weights and optimizer; what it returns writes them. *Collective*: every rank."""
        in_process_writer.install()
        with cpu_shim.cuda_names(), _ordinary_errors():
            request = dist_checkpointing.save(
                self._sharded(_gather),
                str(folder),
                self._strategy,
                # The same tensors every time: looking once suffices.
                validate_access_integrity=not self._checked,
                async_sharded_save=True,
            )
        self._checked = True
        assert request is not None
        return in_process_writer.writing(request, _finished)

    def load(self, folder: Path) -> None:
        """Reads weights and optimizer, whatever layout wrote them. *Collective*: every rank.

        Raises:
            UserError: If they are another model's.
        """
        with cpu_shim.cuda_names(), _ordinary_errors():
            _check_shapes(self._chunks, folder)
            read = dist_checkpointing.load(self._sharded(_room), str(folder))
            for number, chunk in enumerate(self._chunks):
                chunk.load_state_dict(read["model"][str(number)])
            for number, part in enumerate(self._parts):
                _put(part, read["moments"][str(number)])
                for group in part.optimizer.param_groups:
                    group["step"] = read["step"]
            for scaler in self._scalers():
                if "grad_scaler" in read:
                    scaler.load_state_dict(read["grad_scaler"])

    def _sharded(self, kept: Callable[[Any], list[Kept]]) -> dict[str, Any]:
        """Megatron's description of all this rank's tensors. *Collective*: every rank."""
        _fill_moments(self._parts)
        weights = {str(n): chunk.sharded_state_dict(metadata=PER_LAYER) for n, chunk in enumerate(self._chunks)}
        described = {
            id(entry.data): entry
            for entry in nested_values(weights)
            if isinstance(entry, (ShardedTensor, ShardedTensorFactory))
        }
        moments = {
            str(n): {
                str(place): {name: _like(described[id(weight)], name, tensor) for name, tensor in state.items()}
                for place, (weight, state) in enumerate(kept(part))
            }
            for n, part in enumerate(self._parts)
        }
        state = {"model": weights, "moments": moments, "step": self._step()}
        for scaler in self._scalers()[:1]:
            state["grad_scaler"] = scaler.state_dict()
        return state

    def _scalers(self) -> list[Any]:
        # fp16's loss scale, alike everywhere; other precisions have none.
        scalers = [getattr(part, "grad_scaler", None) for part in self._parts]
        return [scaler for scaler in scalers if scaler is not None]

    def _step(self) -> int:
        """Adam's own count: steps that were left out don't count."""
        steps = [int(group.get("step", 0)) for part in self._parts for group in part.optimizer.param_groups]
        return max(steps, default=0)


def _like(described: ShardedTensor | ShardedTensorFactory, name: str, tensor: torch.Tensor) -> Any:
    """The entry of a weight, for something else of the same shape that belongs to it."""
    changed: dict[str, Any] = {"key": f"optimizer.state.{name}.{described.key}", "data": tensor}
    if isinstance(described, ShardedTensor):
        changed["dtype"] = tensor.dtype
    return replace(described, **changed)


def _gather(part: Any) -> list[Kept]:
    """What an optimizer keeps, whole for this rank's weights. *Collective*: every rank, if it is distributed."""
    if not isinstance(part, DistributedOptimizer):
        return _whole(part)
    weights = [weight for buffer in part.buffers for weight in buffer.param_index_map]
    if part.data_parallel_group.size() == 1:
        return [Kept(weight, _shaped(weight, part._get_main_param_and_optimizer_states(weight))) for weight in weights]
    gathered = part.get_parameter_state_dp_zero(use_gloo_comm=False, return_on_all_ranks=True)
    found = []
    for number, buffer in enumerate(part.buffers):
        (world,) = gathered[number].values()
        for weight, (start, end, _) in buffer.param_index_map.items():
            found.append(Kept(weight, _shaped(weight, {name: world[name][start:end] for name in (MASTER, *MOMENTS)})))
    return found


def _room(part: Any) -> list[Kept]:
    """Where what `_gather` gave can be read to, in the same order."""
    if isinstance(part, DistributedOptimizer):
        weights = [weight for buffer in part.buffers for weight in buffer.param_index_map]
    else:
        weights = [kept.weight for kept in _whole(part)]
    names = {weight: [name for name in (MASTER, *MOMENTS) if _is_kept(weight, name)] for weight in weights}
    return [
        Kept(weight, {name: torch.empty_like(weight, dtype=torch.float32) for name in names[weight]})
        for weight in weights
    ]


@torch.no_grad()
def _put(part: Any, read: dict[str, Tensors]) -> None:
    """Gives an optimizer what was read, in the order of `_room`; weights that are fp32 have been read before."""
    if isinstance(part, DistributedOptimizer):
        weights = [weight for buffer in part.buffers for weight in buffer.param_index_map]
        whole = {n: {MASTER: weight.detach()} | read[str(n)] for n, weight in enumerate(weights)}
        part.load_parameter_state_from_fully_reshardable(whole)
        return
    for place, kept in enumerate(_whole(part)):
        for name, tensor in kept.state.items():
            tensor.copy_(read[str(place)][name])


def _whole(part: Any) -> list[Kept]:
    """What an optimizer that isn't distributed keeps: the live tensors."""
    pairs = [(p, p) for group in getattr(part, "fp32_from_fp32_groups", []) for p in group]
    if hasattr(part, "float16_groups"):
        for weights, masters in zip(part.float16_groups, part.fp32_from_float16_groups, strict=True):
            pairs += zip(weights, masters, strict=True)
    else:
        pairs = [(p, p) for group in part.optimizer.param_groups for p in group["params"]]
    return [Kept(w, _shaped(w, {MASTER: main, **part.optimizer.state[main]})) for w, main in pairs]


def _shaped(weight: torch.nn.Parameter, state: Tensors) -> Tensors:
    return {name: state[name].detach().view(weight.shape) for name in (MASTER, *MOMENTS) if _is_kept(weight, name)}


def _is_kept(weight: torch.nn.Parameter, name: str) -> bool:
    return name != MASTER or weight.dtype != torch.float32


def _fill_moments(parts: list[Any]) -> None:
    # Before the first step Adam has no moments, and there must be something to save or to load into.
    for part in parts:
        part.init_state_fn(part.optimizer)


def _check_shapes(chunks: list[GPTModel], folder: Path) -> None:
    """Compares the model with the one that was saved. *Collective*: every rank.

    Raises:
        UserError: On every rank, naming the first difference.
    """
    saved = {
        key: tuple(entry.global_shape) for key, entry in dist_checkpointing.load_tensors_metadata(str(folder)).items()
    }
    words: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(words, next(_differences(chunks, saved), None))
    told = next((word for word in words if word is not None), None)
    if told is not None:
        raise UserError(
            f"checkpoint {folder.name} and the model: {told}",
            expected="the model that was saved; only its layout may change",
            action="resume with the model's settings that the run was started with",
        )


def _differences(chunks: list[GPTModel], saved: dict[str, tuple[int, ...]]) -> Iterator[str]:
    layers = {int(key.split(".")[2]) for key in saved if key.startswith("decoder.layers.")}
    if len(layers) != chunks[0].config.num_layers:
        yield f"{len(layers)} layers were saved, the model has {chunks[0].config.num_layers}"
    for chunk in chunks:
        for entry in nested_values(chunk.sharded_state_dict(metadata=PER_LAYER)):
            if not isinstance(entry, ShardedTensor):
                continue
            if entry.key not in saved:
                yield f"{entry.key} was not saved"
            elif saved[entry.key] != tuple(entry.global_shape):
                yield f"{entry.key} has shape {list(saved[entry.key])} there and {list(entry.global_shape)} here"


def _finished(steps: list[Callable[[], None]]) -> None:
    """Megatron's last steps, which write the index of all tensors. *Collective*: every rank."""
    with cpu_shim.cuda_names(), _ordinary_errors():
        for step in steps:
            step()


@contextmanager
def _ordinary_errors() -> Iterator[None]:
    # torch's CheckpointException is no Exception, so ordinary handlers would let it pass.
    try:
        yield
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise RuntimeError(f"rank {rank}: {reason}") from reason
