"""Optimizer steps of any torch module under accelerate: DDP, accumulation, clipping, AdamW, exact resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kit.errors import RunFailure, UserError
from recipes.checkpoint.writing import Writing, write_later
from recipes.distributed.agreement import assert_equal_parameters
from recipes.distributed.processes import Processes
from recipes.engines.accelerate.launcher import accelerate_environment, build_accelerator, check_wrapped
from recipes.engines.optimizer import build_adamw
from recipes.training.config import TrainingConfig

STATE_FILE = "trained.pt"


class Stepper:
    """A module in training. *Collective*: every rank makes one with the same module.

    Parameters without `requires_grad` are neither trained nor saved. torch's random numbers are seeded here, with a
    seed of its own for every rank, so that dropout differs between ranks and repeats between runs.

    Args:
        module: Any torch module; moved to the device. All ranks begin with rank 0's weights.
        config: The recipe: optimizer, layout, seed.
        processes: The job.
        dtype: torch.float32, or torch.bfloat16 for autocast around fp32 parameters.

    Attributes:
        module: The bare module, for inference, saving and names.
        wrapped: What forward passes that are trained must call.

    Raises:
        UserError: If the layout has other axes than data or doesn't fill the job, or nothing is to be trained.
        RunFailure: If accelerate doesn't see the job, or the ranks' parameters differ.
    """

    def __init__(
        self, module: nn.Module, config: TrainingConfig, processes: Processes, dtype: torch.dtype = torch.float32
    ) -> None:
        _check(module, config)
        config.layout.check_world(processes.world_size)
        self.module, self._processes, self._clip = module, processes, config.optimizer.clip_grad
        torch.manual_seed(config.seed + processes.rank)
        with accelerate_environment(processes):
            self._accelerator = build_accelerator(processes, dtype)
            self.wrapped: nn.Module = self._accelerator.prepare_model(module)
            optimizer = build_adamw(module.parameters(), config.optimizer)
            self._optimizer = self._accelerator.prepare_optimizer(optimizer)
        check_wrapped(self.wrapped, processes)
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.check_agreement()

    def check_agreement(self) -> None:
        """Compares parameters across ranks. *Collective*: every rank.

        Raises:
            RunFailure: If a parameter differs.
        """
        assert_equal_parameters(self.module.named_parameters(), self._processes)

    def step(self, losses: Iterable[torch.Tensor], learning_rate: float, count: int = 1) -> float:
        """One optimizer step; returns the gradient norm before clipping. *Collective*: every rank.

        Args:
            losses: This rank's micro-batches, one scalar each, best made by a generator, so that only one graph is in
                memory. Their sum over micro-batches and ranks is the objective: DDP's mean over ranks is undone here.
                Each depends on at least one trained parameter, through any number of calls of `wrapped`.
            learning_rate: Of this step.
            count: How many losses there are. Gradients are summed over ranks during the last one's backward pass.
        """
        self._optimizer.zero_grad(set_to_none=True)
        waiting = iter(losses)
        for number in range(1, count + 1):
            # Forward passes never announce themselves to DDP: which parameters a loss uses, the loss itself knows best.
            with self._accelerator.no_sync(self.wrapped):
                loss = next(waiting, None)
            assert loss is not None, f"step was told of {count} losses and got {number - 1}"
            with self._summed(loss) if number == count else self._accelerator.no_sync(self.wrapped):
                self._accelerator.backward(loss * self._processes.world_size)
            del loss
        assert next(waiting, None) is None, f"step was told of {count} losses and got more: say count="
        norm = self._accelerator.clip_grad_norm_(self._trained, self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return float(norm)

    def save(self, folder: Path) -> Writing:
        """Trained parameters and optimizer (rank 0) and random numbers (each rank). *Collective*: every rank."""
        contents: dict[Path, Any] = {folder / _random_file(self._processes.rank): self._random_state()}
        if self._processes.first:
            state = {"module": self._trained_state(), "optimizer": self._optimizer.state_dict()}
            contents[folder / STATE_FILE] = state
        return write_later(contents)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote, bit for bit. *Collective*: every rank.

        With another number of ranks weights and optimizer are the same, random numbers aren't.

        Raises:
            RunFailure: If the parameters aren't the same as those that were saved.
        """
        state = torch.load(folder / STATE_FILE, map_location=self._processes.device, weights_only=True)
        expected = self._trained_state()
        if state["module"].keys() != expected.keys():
            name = sorted(state["module"].keys() ^ expected.keys())[0]
            raise RunFailure(
                f"{folder / STATE_FILE} and the model don't hold the same trained parameters, as {name}",
                expected="the model that was saved",
                action="resume the run with the configuration that it was started with",
            )
        self.module.load_state_dict(state["module"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        random = folder / _random_file(self._processes.rank)
        if random.exists():
            self._set_random_state(torch.load(random, weights_only=True))

    @contextmanager
    def _summed(self, loss: torch.Tensor) -> Iterator[None]:
        """Lets the backward pass of this loss reduce all gradients that were accumulated.

        DDP would prepare for it in the forward pass, from the module's output. Then a parameter that this output
        needs and the loss doesn't would be waited for, for ever.
        """
        if isinstance(self.wrapped, DistributedDataParallel):
            self.wrapped.reducer.prepare_for_backward([loss])
        yield

    def _trained_state(self) -> dict[str, torch.Tensor]:
        """The state dict without what is frozen; buffers stay."""
        parameters = self.module.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in parameters if not parameter.requires_grad}
        return {name: tensor for name, tensor in self.module.state_dict().items() if name not in frozen}

    def _random_state(self) -> dict[str, torch.Tensor]:
        device = self._processes.device
        state = {"cpu": torch.get_rng_state()}
        return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})

    def _set_random_state(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if self._processes.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._processes.device)


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"


def _check(module: nn.Module, config: TrainingConfig) -> None:
    if config.layout.world_size != config.layout.data:
        raise UserError(
            f"engine accelerate with layout {config.layout.describe()}",
            expected="a layout of the data axis alone: accelerate cuts the batch, not the model",
            action="set every other degree of layout to 1, or engine=megatron",
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(
            "a model in which no parameter is trained",
            expected="at least one parameter that requires a gradient",
            action="check which parameters the recipe freezes",
        )
