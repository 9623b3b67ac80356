"""What ranks do in the engine tests: train a small model on real text and tell everything that can be compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import real_text
import torch

from kit.config import parse
from recipes.data import SampleStream, batches
from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig

STEPS, VOCAB, LENGTH, BATCH, RATE = 20, 256, 64, 8, 1e-3


def configuration(engine: str, layout: dict[str, Any], **model: Any) -> tuple[PretrainConfig, ModelConfig]:
    data = {
        "name": "test",
        "engine": engine,
        "layout": layout,
        "model": {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 128} | model,
        "data": {"sequence_length": LENGTH, "global_batch_samples": BATCH, "micro_batch_samples": 2},
        "optimizer": {"learning_rate": RATE},
        "budget": {"steps": STEPS},
    }
    config = parse(PretrainConfig, data, "test")
    return config, config.model.with_vocab(VOCAB)


def started_engine(
    processes: Processes, engine: str, layout: dict[str, Any], **model: Any
) -> tuple[Engine, ModelConfig]:
    config, sized = configuration(engine, layout, **model)
    made = build_engine(config, sized, processes, torch.float32)
    made.load_weights(partial(first_tensor, sized, 1234))
    return made, sized


def stream() -> SampleStream:
    return SampleStream(real_text.byte_tokens(), LENGTH, seed=1)


def steps_of(engine: Engine, first: int, last: int) -> list[tuple[float, float]]:
    feed = batches(stream(), range(first, last + 1), BATCH, engine.data_rank, engine.data_degree)
    return [tuple(engine.train_step(batch, RATE)) for batch in feed]


def weights_of(engine: Engine) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in engine.stream_weights()}


def train_and_tell(processes: Processes, engine: str, layout: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    made, _ = started_engine(processes, engine, layout, **model)
    curve = steps_of(made, 1, STEPS)
    feed = batches(stream(), range(40, 41), BATCH, made.data_rank, made.data_degree)
    logits = made.logits(stream().batch(0, 0, 2).tokens)
    return {
        "curve": curve,
        "validation": made.mean_loss(list(feed)),
        "weights": weights_of(made) if processes.first else len(weights_of(made)),
        "logits": None if logits is None else logits.numpy(),
    }


def save_and_go_on(processes: Processes, layout: dict[str, Any], folder: str) -> list[tuple[float, float]]:
    made, _ = started_engine(processes, "megatron", layout)
    steps_of(made, 1, 5)
    made.save_state(Path(folder))
    return steps_of(made, 6, 10)


def load_and_go_on(processes: Processes, layout: dict[str, Any], folder: str) -> list[tuple[float, float]]:
    made, sized = started_engine(processes, "megatron", layout)
    made.load_weights(lambda name: torch.zeros(sized.tensor_shapes()[name]))
    made.load_state(Path(folder))
    return steps_of(made, 6, 10)


def export_directory(processes: Processes, layout: dict[str, Any], model: dict[str, Any], folder: str) -> Any:
    from recipes.model.huggingface import SpecialIds, write_directory

    made, sized = started_engine(processes, "megatron", layout, **model)
    steps_of(made, 1, 3)
    tokenizer = Path(folder) / "tokenizer"
    if processes.first:
        tokenizer.mkdir()
        ids = SpecialIds(real_text.EOD_ID, real_text.PAD_ID)
        write_directory(Path(folder) / "model", sized, LENGTH, ids, made.stream_weights(), tokenizer)
    else:
        weights_of(made)
    logits = made.logits(stream().batch(0, 0, 4).tokens)
    return None if logits is None else logits.numpy()
