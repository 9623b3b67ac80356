"""The plain engine: one process, the reference model, torch's AdamW. Other engines are compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from kit.errors import UserError
from recipes.checkpoint.writing import Writing, write_later
from recipes.data import Batch, Ids
from recipes.distributed.processes import Processes
from recipes.engines.loss import count_labels, loss_sum
from recipes.engines.optimizer import build_adamw
from recipes.engines.protocol import Gate, StepResult
from recipes.engines.sources import source_losses, source_names, tally
from recipes.model.config import ModelConfig
from recipes.model.gpt import Gpt
from recipes.training.config import TrainingConfig

STATE_FILE = "state.pt"


class ReferenceEngine:
    """See `recipes.engines.protocol.Engine`."""

    name = "reference"
    data_rank = 0
    data_degree = 1
    gate: Gate | None = None

    def __init__(self, config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> None:
        if processes.world_size > 1:
            raise UserError(
                f"engine reference in a job of {processes.world_size} processes",
                expected="one process: it is the plain engine that the others are compared with",
                action="set engine=megatron, or every degree of layout to 1",
            )
        if dtype != torch.float32:
            raise UserError("engine reference with precision bf16", expected="fp32", action="set precision=fp32")
        self._processes, self._clip = processes, config.optimizer.clip_grad
        self._micro, self._sources = config.data.micro_batch_samples, source_names(config)
        self._names = list(model.tensor_shapes())
        self._model = Gpt(model).to(processes.device)
        self._optimizer = build_adamw(self._model.parameters(), config.optimizer)

    @torch.no_grad()
    def load_weights(self, whole: Callable[[str], torch.Tensor]) -> None:
        """Copies every tensor by its name."""
        for name, tensor in self._model.state_dict().items():
            tensor.copy_(whole(name))

    def stream_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The state dict, whose names are the canonical ones."""
        state = self._model.state_dict()
        for name in self._names:
            yield name, state[name].detach().float().cpu()

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """Accumulates the micro-batches' gradients, clips, steps."""
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        count, total = count_labels([batch], self._processes), 0.0
        by_source = torch.zeros(2, len(self._sources), dtype=torch.float64)
        for piece in batch.pieces(self._micro):
            logits, labels = self._forward(piece)
            loss = loss_sum(logits, labels) / count
            loss.backward()
            total += loss.item()
            if piece.sources is not None:
                by_source += tally(piece, logits, labels, len(self._sources)).double().cpu()
        extra = source_losses(self._sources, *by_source.tolist())
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip).item()
        if self.gate is not None and not self.gate(total, norm):
            return StepResult(total, norm, extra=extra, skipped=True)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return StepResult(total, norm, extra=extra)

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Mean over every counted label of the batches."""
        self._model.eval()
        pieces = (piece for batch in batches for piece in batch.pieces(self._micro))
        return sum(loss_sum(*self._forward(piece)).item() for piece in pieces) / count_labels(batches, self._processes)

    @torch.no_grad()
    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """One forward pass."""
        self._model.eval()
        return self._model(torch.from_numpy(tokens).to(self._processes.device)).float().cpu()

    def save_state(self, folder: Path) -> Writing:
        """One file with model and optimizer."""
        state = {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
        return write_later({folder / STATE_FILE: state})

    def load_state(self, folder: Path) -> None:
        """Reads the file that `save_state` wrote."""
        state = torch.load(folder / STATE_FILE, map_location=self._processes.device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels of a batch."""
        tokens, labels, documents = (
            None if ids is None else torch.from_numpy(ids).to(self._processes.device)
            for ids in (batch.tokens, batch.labels, batch.documents)
        )
        assert tokens is not None and labels is not None
        return self._model(tokens, documents), labels
