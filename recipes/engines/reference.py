"""The plain engine: one process, the reference model, torch's AdamW. Other engines are compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from kit.errors import UserError
from recipes.data import Batch, Ids
from recipes.distributed.processes import Processes
from recipes.engines.protocol import StepResult
from recipes.model.config import ModelConfig
from recipes.model.gpt import Gpt
from recipes.training.config import TrainingConfig

STATE_FILE = "state.pt"


class ReferenceEngine:
    """See `recipes.engines.protocol.Engine`."""

    name = "reference"
    data_rank = 0
    data_degree = 1

    def __init__(self, config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> None:
        if processes.world_size > 1:
            raise UserError(
                f"engine reference in a job of {processes.world_size} processes",
                expected="one process: it is the plain engine that the others are compared with",
                action="set engine=megatron, or every degree of layout to 1",
            )
        if dtype != torch.float32:
            raise UserError("engine reference with precision bf16", expected="fp32", action="set precision=fp32")
        self._device, self._optimizer_config = processes.device, config.optimizer
        self._micro = config.data.micro_batch_samples
        self._names = list(model.tensor_shapes())
        self._model = Gpt(model).to(self._device)
        self._optimizer = torch.optim.AdamW(
            self._groups(), betas=(config.optimizer.beta1, config.optimizer.beta2), eps=config.optimizer.eps
        )

    def _groups(self) -> list[dict[str, object]]:
        parameters = list(self._model.parameters())
        decay = self._optimizer_config.weight_decay
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]

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
        total = 0.0
        for tokens, labels in self._micro_batches(batch):
            loss = self._loss_sum(tokens, labels) / batch.tokens.size
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._optimizer_config.clip_grad)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return StepResult(total, norm.item())

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Mean over every token of the batches."""
        self._model.eval()
        pieces = [self._loss_sum(*pair).item() for batch in batches for pair in self._micro_batches(batch)]
        return sum(pieces) / sum(batch.tokens.size for batch in batches)

    @torch.no_grad()
    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """One forward pass."""
        self._model.eval()
        return self._model(torch.from_numpy(tokens).to(self._device)).float().cpu()

    def save_state(self, folder: Path) -> None:
        """One file with model and optimizer."""
        torch.save({"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}, folder / STATE_FILE)

    def load_state(self, folder: Path) -> None:
        """Reads the file that `save_state` wrote."""
        state = torch.load(folder / STATE_FILE, map_location=self._device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _loss_sum(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self._model(tokens).flatten(0, 1).float(), labels.flatten(), reduction="sum")

    def _micro_batches(self, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(batch.tokens), self._micro):
            piece = slice(start, start + self._micro)
            yield (
                torch.from_numpy(batch.tokens[piece]).to(self._device),
                torch.from_numpy(batch.labels[piece]).to(self._device),
            )
