"""The DeepSpeed engine: data parallelism with ZeRO around the reference model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import nn

from kit.errors import RunFailure, UserError
from recipes.data import Batch, Ids
from recipes.distributed.agreement import assert_equal_parameters
from recipes.distributed.processes import Processes
from recipes.engines.deepspeed import owned, state
from recipes.engines.deepspeed.settings import ZeroTrainingConfig
from recipes.engines.deepspeed.start import start_engine
from recipes.engines.loss import count_labels, loss_sum, micro_batches
from recipes.engines.protocol import StepResult
from recipes.model.config import ModelConfig
from recipes.training.config import TrainingConfig


class DeepSpeedEngine:
    """See `recipes.engines.protocol.Engine`."""

    name = "deepspeed"

    def __init__(self, config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> None:
        if not isinstance(config, ZeroTrainingConfig):
            raise UserError(
                f"engine deepspeed in stage {config.stage}",
                expected="a stage whose recipe has a part `zero`",
                action="use stage zero, or another engine",
            )
        self._processes = processes
        self.data_rank, self.data_degree = processes.rank, processes.world_size
        self._micro, self._stage = config.data.micro_batch_samples, config.zero.stage
        self._names = list(model.tensor_shapes())
        self._engine = start_engine(config, model, processes)
        assert next(self._engine.module.parameters()).dtype == dtype
        self._owned = owned.Owned(self._engine)

    @torch.no_grad()
    def load_weights(self, whole: Callable[[str], torch.Tensor]) -> None:
        """Every rank sets its copy; with stage 3 rank 0 alone reads, and its values reach the others."""
        for name, parameter in self._named():
            with self._gathered(parameter, modified=True):
                if self._stage < 3 or self._processes.first:
                    parameter.copy_(whole(name))
        if self._stage:
            # ZeRO's optimizers step their own fp32 weights, which are as old as the engine.
            self._engine.optimizer.refresh_fp32_params()
        self._check_equal()

    def stream_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The parameters by their names; with stage 3 each is gathered when its turn comes."""
        for name, tensor in self._whole():
            yield name, tensor.float().cpu() if self._processes.first else torch.empty(0)

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """Forward and backward over all micro-batches, the reduction of ZeRO's stage, clipping, AdamW."""
        engine = self._engine
        engine.train()
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        counted = count_labels([batch], self._processes)
        pieces = list(self._micro_batches(batch))
        assert len(pieces) == engine.gradient_accumulation_steps(), f"{len(pieces)} micro-batches in step {batch.step}"
        total, norm = 0.0, None
        for tokens, labels in pieces:
            loss = loss_sum(engine(tokens), labels) / counted
            total += loss.item()
            # DeepSpeed averages over the ranks; the sum is wanted.
            engine.backward(loss * self.data_degree, scale_wrt_gas=False)
            self._owned.count_gradients()
            if engine.is_gradient_accumulation_boundary():
                norm = self._norm_of_plain_gradients()
            engine.step()
        if norm is None:
            norm = self._norm_of_step()
        return StepResult(self._processes.total(total), norm, extra=self._owned.of_every_rank(self._processes))

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Forward only."""
        self._engine.eval()
        pieces = [pair for batch in batches for pair in self._micro_batches(batch)]
        mine = sum(loss_sum(self._engine(tokens), labels).item() for tokens, labels in pieces)
        return self._processes.total(mine) / count_labels(batches, self._processes)

    @torch.no_grad()
    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """Forward only, on every rank: with stage 3 each brings its part of the parameters."""
        self._engine.eval()
        pieces = [self._engine(piece).float().cpu() for piece, _ in self._micro_batches(Batch(0, tokens, tokens))]
        return torch.cat(pieces) if self._processes.first else None

    def save_state(self, folder: Path) -> None:
        """DeepSpeed's checkpoint: the model once, the optimizer's part of every rank."""
        state.save(self._engine, folder)

    def load_state(self, folder: Path) -> None:
        """DeepSpeed's checkpoint."""
        state.load(self._engine, folder)
        self._check_equal()

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        parameters = dict(self._engine.module.named_parameters())
        for name in self._names:
            yield name, parameters[name]

    def _gathered(self, parameter: nn.Parameter, *, modified: bool = False) -> Any:
        return deepspeed.zero.GatheredParameters(
            [parameter], modifier_rank=0 if modified else None, enabled=self._stage == 3
        )

    @torch.no_grad()
    def _whole(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self._named():
            with self._gathered(parameter):
                whole = parameter.detach().clone()
            yield name, whole

    def _check_equal(self) -> None:
        assert_equal_parameters(self._whole(), self._processes)

    def _norm_of_plain_gradients(self) -> float | None:
        """The norm before clipping where DeepSpeed doesn't tell it: stage 0 in fp32, with plain reduced gradients."""
        if self._engine.optimizer is not self._engine.basic_optimizer:
            return None
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def _norm_of_step(self) -> float:
        """DeepSpeed's norm, which for gradients that aren't finite is a mark or the one of the step before."""
        norm = self._engine.get_global_grad_norm()
        if norm is None:
            raise RunFailure(
                "DeepSpeed tells no gradient norm",
                expected="the norm before clipping",
                action="report this with the run's config.yaml",
            )
        finite = self._engine.was_step_applied() and float(norm) >= 0
        return float(norm) if finite else float("nan")

    def _micro_batches(self, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return micro_batches(batch, self._micro, self._processes.device)
