"""The accelerate engine: a Hugging Face causal language model, data-parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from recipes.checkpoint.writing import Writing
from recipes.data import Batch, Ids
from recipes.distributed.processes import Processes
from recipes.engines.accelerate.stepper import Stepper
from recipes.engines.loss import count_labels, loss_sum, micro_batches
from recipes.engines.protocol import StepResult
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds, hugging_face_config
from recipes.training.config import TrainingConfig


class AccelerateEngine:
    """See `recipes.engines.protocol.Engine`.

    Args:
        config: The recipe.
        model: What to build as transformers' LlamaForCausalLM; or any causal language model of transformers, also
            wrapped by PEFT, whose own names are the names of the weights then.
        processes: The job.
        dtype: torch.float32, or torch.bfloat16 for autocast around fp32 parameters.

    Raises:
        UserError: If the layout has other axes than data.
    """

    name = "accelerate"

    def __init__(
        self, config: TrainingConfig, model: ModelConfig | nn.Module, processes: Processes, dtype: torch.dtype
    ) -> None:
        self.data_rank, self.data_degree = processes.rank, config.layout.data
        self._processes, self._micro = processes, config.data.micro_batch_samples
        module = model if isinstance(model, nn.Module) else _build(model, config.data.sequence_length)
        self._names = list(module.state_dict() if isinstance(model, nn.Module) else model.tensor_shapes())
        self._stepper = Stepper(module, config, processes, dtype)

    @property
    def module(self) -> nn.Module:
        """The bare model."""
        return self._stepper.module

    @torch.no_grad()
    def load_weights(self, whole: Callable[[str], torch.Tensor]) -> None:
        """Copies every tensor by its name; *Collective*: afterwards the ranks compare what they hold."""
        state = self.module.state_dict()
        for name in self._names:
            state[name].copy_(whole(name))
        self._stepper.check_agreement()

    def stream_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The state dict; every rank has all of it."""
        state = self.module.state_dict()
        for name in self._names:
            yield name, state[name].detach().float().cpu() if self._processes.first else torch.empty(0)

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """Accumulates the micro-batches' gradients, sums them over ranks, clips, steps."""
        self.module.train()
        count = count_labels([batch], self._processes)
        sums: list[torch.Tensor] = []

        def losses() -> Iterator[torch.Tensor]:
            for tokens, labels in micro_batches(batch, self._micro, self._processes.device):
                loss = loss_sum(self._stepper.wrapped(input_ids=tokens, use_cache=False).logits, labels)
                sums.append(loss.detach())
                yield loss / count

        norm = self._stepper.step(losses(), learning_rate, math.ceil(len(batch.tokens) / self._micro))
        return StepResult(self._total(sums) / count, norm)

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Forward only."""
        self.module.eval()
        pieces = [pair for batch in batches for pair in micro_batches(batch, self._micro, self._processes.device)]
        sums = [loss_sum(self._logits(tokens), labels) for tokens, labels in pieces]
        return self._total(sums) / count_labels(batches, self._processes)

    @torch.no_grad()
    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """One forward pass on rank 0."""
        if not self._processes.first:
            return None
        self.module.eval()
        return self._logits(torch.from_numpy(tokens).to(self._processes.device)).float().cpu()

    def save_state(self, folder: Path) -> Writing:
        """What is trained, the optimizer, and random numbers; not what is frozen."""
        return self._stepper.save(folder)

    def load_state(self, folder: Path) -> None:
        """What `save_state` wrote."""
        self._stepper.load(folder)

    def _logits(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return logits

    def _total(self, sums: list[torch.Tensor]) -> float:
        return self._processes.total(torch.stack(sums).double().sum().item())


def _build(model: ModelConfig, sequence_length: int) -> nn.Module:
    # Imported here: a Stepper around another module needn't wait for it.
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = hugging_face_config(model, sequence_length, SpecialIds(0, 0))
    # Whoever loads weights says what tokens mean; and transformers gives the padding token's embedding no gradient.
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    module: nn.Module = LlamaForCausalLM(LlamaConfig(**settings | ids))
    return module
