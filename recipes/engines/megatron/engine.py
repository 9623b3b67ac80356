"""The megatron-core engine: tensor, pipeline, data and context parallelism around one GPT model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from kit.layout import Coordinates
from recipes.data import Batch, Ids
from recipes.distributed.processes import Processes
from recipes.engines.megatron import cpu_shim

cpu_shim.install()

from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402

from recipes.checkpoint.writing import Writing  # noqa: E402
from recipes.engines.loss import check_count  # noqa: E402
from recipes.engines.megatron import build, cuda, state  # noqa: E402
from recipes.engines.megatron.attention import unzigzag  # noqa: E402
from recipes.engines.megatron.feed import Feeder, forward_logits, forward_loss  # noqa: E402
from recipes.engines.megatron.optimise import gated_step  # noqa: E402
from recipes.engines.megatron.randomness import reseed  # noqa: E402
from recipes.engines.megatron.translate import transformer_config  # noqa: E402
from recipes.engines.megatron.weights import chunk_rules, export_order  # noqa: E402
from recipes.engines.protocol import Gate, StepResult  # noqa: E402
from recipes.engines.sources import source_losses, source_names  # noqa: E402
from recipes.model.config import ModelConfig  # noqa: E402
from recipes.training.config import TrainingConfig  # noqa: E402


class MegatronEngine:
    """See `recipes.engines.protocol.Engine`."""

    name = "megatron"
    gate: Gate | None = None

    def __init__(self, config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> None:
        build.check(config, model)
        self._processes, self._model, self._layout = processes, model, config.layout
        self._place, self._seed = config.layout.coordinates(processes.rank), config.seed
        self.data_rank, self.data_degree = self._place.data, config.layout.data
        self._micro, self._length = config.data.micro_batch_samples, config.data.sequence_length
        self._clip = config.optimizer.clip_grad
        self._sources = source_names(config)
        self._feeder = Feeder(config.layout, self._place.context, processes.device, dtype, len(self._sources))
        self._groups = build.build_groups(config.layout, config.seed)
        cuda.start_tensor_overlap(config, model)
        translated = transformer_config(config, model, dtype)
        self._chunks = build.build_chunks(config, model, translated, self._groups, processes)
        layers = model.layers // (config.layout.pipeline * config.layout.interleave)
        self._rules = [
            chunk_rules(model, chunk, (number * config.layout.pipeline + self._place.pipeline) * layers)
            for number, chunk in enumerate(self._chunks)
        ]
        self._wrapped = build.wrap(config, self._chunks, translated, self._groups)
        self._optimizer = build.build_optimizer(config.optimizer, translated, self._wrapped)
        self._state = state.ShardedState(self._chunks, self._optimizer, self._groups.dp_cp)
        self._schedule = get_forward_backward_func()

    @torch.no_grad()
    def load_weights(self, whole: Callable[[str], torch.Tensor]) -> None:
        """Cuts this rank's slice out of every tensor it holds a part of."""
        for chunk, rules in zip(self._chunks, self._rules, strict=True):
            for name, parameter in chunk.named_parameters():
                rule = rules[name]
                slices = rule.split([whole(canonical) for canonical in rule.canonical], self._layout.tensor)
                parameter.copy_(slices[self._place.tensor])
        self._optimizer.reload_model_params()

    @torch.no_grad()
    def stream_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Gathers over the tensor axis on the stage that holds the tensor, then sends to rank 0."""
        cuda.gather_parameters(self._wrapped)
        shapes = self._model.tensor_shapes()
        owned = {
            rule.canonical: (parameter, rule)
            for chunk, rules in zip(self._chunks, self._rules, strict=True)
            for (name, parameter), rule in zip(chunk.named_parameters(), rules.values(), strict=True)
        }
        for names, stage in export_order(self._model, self._layout.pipeline, self._layout.interleave):
            source = self._layout.rank_of(Coordinates(data=0, tensor=0, pipeline=stage, context=0))
            whole: list[torch.Tensor] = []
            if (self._place.pipeline, self._place.data, self._place.context) == (stage, 0, 0):
                parameter, rule = owned[names]
                whole = [t.float().contiguous() for t in rule.join(self._gather(parameter.detach(), self._groups.tp))]
            for number, name in enumerate(names):
                mine = whole[number] if whole else torch.empty(0)
                yield name, self._bring(mine, source, shapes[name])

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """Forward and backward over all micro-batches, gradient reduction, clipping, AdamW."""
        reseed(self._seed, batch.step, self._place)
        for wrapped in self._wrapped:
            wrapped.train()
            wrapped.zero_grad_buffer()
        self._optimizer.zero_grad()
        nats, counts = self._sums(self._run([batch], self._micro, forward_only=False), batch)
        loss = nats[0] / counts[0]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        moved, norm = gated_step(self._optimizer, self._clip, lambda norm: self.gate is None or self.gate(loss, norm))
        by_source = source_losses(self._sources, nats[1:], counts[1:])
        return StepResult(loss, norm, extra=by_source, skipped=not moved)

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Batch]) -> float:
        """Forward only."""
        cuda.gather_parameters(self._wrapped)
        for wrapped in self._wrapped:
            wrapped.eval()
        samples = sum(len(batch.tokens) for batch in batches)
        micro = math.gcd(self._micro, samples)
        if self._layout.interleave > 1:
            # Interleaved chunks go round the stages, so micro-batches come in multiples of the stages.
            micro = math.gcd(micro, max(1, samples // self._layout.pipeline))
        nats, counts = self._sums(self._run(batches, micro, forward_only=True), batches[0])
        return nats[0] / counts[0]

    @torch.no_grad()
    def logits(self, tokens: Ids) -> torch.Tensor | None:
        """Forward only on the first data rank's replica's last stage; the pieces go to rank 0."""
        cuda.gather_parameters(self._wrapped)
        for wrapped in self._wrapped:
            wrapped.eval()
        batch = Batch(0, tokens, tokens)
        pieces = self._run([batch], 1, forward_only=True, collect_logits=True)
        last, shape = self._layout.pipeline - 1, (*tokens.shape, self._model.vocab_size)
        source = self._layout.rank_of(Coordinates(data=0, tensor=0, pipeline=last, context=0))
        whole = torch.empty(0)
        if (self._place.pipeline, self._place.data) == (last, 0):
            columns = torch.cat(self._gather(torch.cat(pieces).float(), self._groups.tp), dim=-1)
            whole = unzigzag(self._gather(columns, self._groups.cp), dim=1) if self._layout.context > 1 else columns
        answer = self._bring(whole.contiguous(), source, shape)
        return answer if self._processes.first else None

    def save_state(self, folder: Path) -> Writing:
        """Megatron's sharded checkpoint."""
        cuda.gather_parameters(self._wrapped)
        return self._state.save(folder)

    def load_state(self, folder: Path) -> None:
        """Megatron's sharded checkpoint."""
        self._state.load(folder)

    def _run(
        self, batches: Sequence[Batch], micro: int, *, forward_only: bool, collect_logits: bool = False
    ) -> list[torch.Tensor]:
        """Megatron's schedule over the batches; what the last stage collects, one entry a micro-batch."""
        count = sum(len(batch.tokens) for batch in batches) // micro
        feeds = [self._feeder.feed(batches, micro) for _ in self._wrapped]
        single = len(self._wrapped) == 1
        with cpu_shim.cuda_names():
            collected = self._schedule(
                forward_step_func=forward_logits if collect_logits else forward_loss,
                data_iterator=feeds[0] if single else feeds,
                model=self._wrapped[0] if single else self._wrapped,
                num_microbatches=count,
                seq_length=self._length,
                micro_batch_size=micro,
                forward_only=forward_only,
                collect_non_loss_data=collect_logits,
            )
        return list(collected)

    def _sums(self, collected: list[torch.Tensor], batch: Batch) -> tuple[list[float], list[float]]:
        """Adds nats and counted labels, of all and by source, over micro-batches and ranks; one tensor rank counts."""
        columns = 1 if batch.sources is None else 1 + len(self._sources)
        total = torch.zeros(2, columns, dtype=torch.float64, device=self._processes.device)
        if self._place.pipeline == self._layout.pipeline - 1 and self._place.tensor == 0:
            total += torch.stack(collected).double().sum(dim=0)
        dist.all_reduce(total)
        nats, counts = total.tolist()
        check_count(counts[0])
        return nats, counts

    @staticmethod
    def _gather(piece: torch.Tensor, group: dist.ProcessGroup) -> list[torch.Tensor]:
        pieces = [torch.empty_like(piece) for _ in range(group.size())]
        dist.all_gather(pieces, piece.contiguous(), group=group)
        return pieces

    def _bring(self, whole: torch.Tensor, source: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Moves a tensor from the rank that has it to rank 0's CPU; other ranks get an empty one."""
        rank = self._processes.rank
        if rank == source and rank != 0:
            dist.send(whole, 0)
        elif rank == 0 and source != 0:
            whole = torch.empty(shape, device=self._processes.device)
            dist.recv(whole, source)
        return whole.cpu() if rank == 0 else torch.empty(0)
