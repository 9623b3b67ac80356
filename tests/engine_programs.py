"""What ranks do in the engine tests: train a small model on real text and tell everything that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import real_text
import torch

from kit.config import merge, parse
from recipes.checkpoint.writing import write_at_once
from recipes.data import IGNORED, Batch, Ids, SampleStream, batches
from recipes.distributed.processes import DTYPES, Processes
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.huggingface import write_directory
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig
from recipes.training.config import TrainingConfig
from recipes.zero.config import ZeroConfig

STEPS, VOCAB, LENGTH, BATCH, RATE = 20, 256, 64, 8, 1e-3

LLAMA = {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 128}
GPT2 = {"layers": 4, "hidden": 64, "heads": 4, "ffn": 128}

TOLERANCE = 1e-5
"""On losses of 3 to 6 nats over 20 fp32 steps; sums in another order explain about 5e-7."""

COUNTED = (0, 0, 1, 3, 64, 60, 2, 64)
"""How many labels of each sample of a global batch count: micro-batches and ranks differ as much as they can."""


def configuration(
    engine: str, layout: dict[str, Any], *, recipe: Mapping[str, Any] | None = None, **model: Any
) -> tuple[TrainingConfig, ModelConfig]:
    data: dict[str, Any] = {
        "name": "test",
        "engine": engine,
        "layout": layout,
        "model": (LLAMA if model.get("family", "llama") == "llama" else GPT2) | model,
        "data": {"sequence_length": LENGTH, "global_batch_samples": BATCH, "micro_batch_samples": 2},
        "optimizer": {"learning_rate": RATE},
        "budget": {"steps": STEPS},
    }
    data = merge(data, recipe or {})
    config: PretrainConfig | ZeroConfig
    config = parse(ZeroConfig, data, "test") if engine == "deepspeed" else parse(PretrainConfig, data, "test")
    assert config.model is not None
    return config, config.model.with_vocab(VOCAB, LENGTH)


def started_engine(
    processes: Processes,
    engine: str,
    layout: dict[str, Any],
    *,
    recipe: Mapping[str, Any] | None = None,
    **model: Any,
) -> tuple[Engine, ModelConfig]:
    config, sized = configuration(engine, layout, recipe=recipe, **model)
    made = build_engine(config, sized, processes, DTYPES[config.precision])
    made.load_weights(partial(first_tensor, sized, 1234))
    return made, sized


def stream() -> SampleStream:
    return SampleStream(real_text.byte_tokens(), LENGTH, seed=1)


def batch_of(engine: Engine, step: int) -> Batch:
    return next(batches(stream(), range(step, step + 1), BATCH, engine.data_rank, engine.data_degree))


def steps_of(engine: Engine, first: int, last: int) -> list[tuple[float, float]]:
    results = [engine.train_step(batch_of(engine, step), RATE) for step in range(first, last + 1)]
    return [(result.loss, result.grad_norm) for result in results]


def masked(engine: Engine, batch: Batch) -> Batch:
    """This rank's batch with few labels left, very unevenly over samples."""
    share = BATCH // engine.data_degree
    counted = np.array(COUNTED[engine.data_rank * share : (engine.data_rank + 1) * share])
    return replace(batch, labels=np.where(np.arange(LENGTH) < counted[:, None], batch.labels, IGNORED))


def weights_of(engine: Engine) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in engine.stream_weights()}


def tell(processes: Processes, made: Engine, sized: ModelConfig) -> dict[str, Any]:
    """What can be compared of an engine that has been trained; it has its first weights again afterwards."""
    logits = made.logits(stream().batch(0, 0, 2).tokens)
    told = {
        "validation": made.mean_loss([batch_of(made, 40), batch_of(made, 41)]),
        "weights": weights_of(made) if processes.first else len(weights_of(made)),
        "logits": None if logits is None else logits.numpy(),
    }
    made.load_weights(partial(first_tensor, sized, 1234))
    told["masked validation"] = made.mean_loss([masked(made, batch_of(made, 40))])
    result = made.train_step(masked(made, batch_of(made, 1)), RATE)
    return told | {"masked": (result.loss, result.grad_norm)}


def train_and_tell(
    processes: Processes,
    engine: str,
    layout: dict[str, Any],
    model: dict[str, Any],
    recipe: dict[str, Any] | None = None,
) -> dict[str, Any]:
    made, sized = started_engine(processes, engine, layout, recipe=recipe, **model)
    return {"curve": steps_of(made, 1, STEPS)} | tell(processes, made, sized)


def train_only(
    processes: Processes, engine: str, layout: dict[str, Any], model: dict[str, Any], recipe: dict[str, Any]
) -> list[tuple[float, float]]:
    made, _ = started_engine(processes, engine, layout, recipe=recipe, **model)
    return steps_of(made, 1, STEPS)


def assert_learns_alike(told: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """Holds what every rank told against what the reference engine told."""
    curve, wanted = np.array(told[0]["curve"]), np.array(expected["curve"])
    assert wanted[-1, 0] < wanted[0, 0] - 1, "a model that learns nothing would agree whatever the layout"
    assert np.abs(curve - wanted)[:, 0].max() < TOLERANCE
    np.testing.assert_allclose(curve[:, 1], wanted[:, 1], rtol=0, atol=1e-4, err_msg="gradient norms")
    assert abs(told[0]["validation"] - expected["validation"]) < TOLERANCE
    assert all(other["curve"] == told[0]["curve"] for other in told), "every rank knows the whole job's loss"
    assert list(told[0]["weights"]) == list(expected["weights"])
    for name, tensor in expected["weights"].items():
        np.testing.assert_allclose(told[0]["weights"][name], tensor, atol=5e-5, rtol=0, err_msg=name)
    np.testing.assert_allclose(told[0]["logits"], expected["logits"], atol=1e-4, rtol=0)


def assert_counts_alike(told: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """The same for a batch most of whose labels don't count."""
    for key in ("masked", "masked validation"):
        assert all(other[key] == told[0][key] for other in told), "every rank knows the whole job's loss"
    assert abs(told[0]["masked"][0] - expected["masked"][0]) < TOLERANCE
    assert abs(told[0]["masked"][1] - expected["masked"][1]) < TOLERANCE * expected["masked"][1]
    assert abs(told[0]["masked validation"] - expected["masked validation"]) < TOLERANCE


Part = dict[str, Any]
"""What `train_part` tells: losses with gradient norms, samples by step, digests of the state, last weights."""


def train_part(
    processes: Processes,
    layout: dict[str, Any],
    model: dict[str, Any],
    recipe: dict[str, Any],
    steps: tuple[int, int],
    load: str | None = None,
    save: tuple[int, str] | None = None,
) -> Part:
    """The steps first..last of one run: from first weights or from a checkpoint; one may be saved on the way."""
    made, sized = started_engine(processes, "megatron", layout, recipe=recipe, **model)
    told: Part = {"data rank": made.data_rank, "curve": [], "samples": []}
    if load is not None:
        made.load_weights(lambda name: torch.zeros(sized.tensor_shapes()[name]))
        made.load_state(Path(load))
        told["state"] = state_digests(made)
    numbers = range(steps[0], steps[1] + 1)
    for batch in batches(stream(), numbers, BATCH, made.data_rank, made.data_degree):
        result = made.train_step(batch, RATE)
        told["curve"].append((result.loss, result.grad_norm))
        told["samples"].append([sample_id(row) for row in batch.tokens])
        if save is not None and save[0] == batch.step:
            told["state"] = state_digests(made)
            write_at_once(made.save_state(Path(save[1])))
    return told | {"weights": weights_of(made)}


def sample_id(tokens: Ids) -> str:
    """Names a sample by what it holds."""
    return hashlib.sha256(tokens.tobytes()).hexdigest()[:12]


def state_digests(engine: Engine) -> list[str]:
    """A digest of every weight of this rank and of all that its optimizer keeps of it, in the optimizer's order."""
    found = []
    for part in engine._optimizer.chained_optimizers:  # type: ignore[attr-defined]
        if getattr(part, "is_stub_optimizer", False):
            continue
        for group in part.optimizer.param_groups:
            for parameter in group["params"]:
                kept = {name: t for name, t in part.optimizer.state[parameter].items() if isinstance(t, torch.Tensor)}
                tensors = [parameter.detach(), *(kept[name] for name in sorted(kept))]
                found.append(hashlib.sha256(b"".join(t.float().numpy().tobytes() for t in tensors)).hexdigest()[:12])
            found.append(f"step {group.get('step')}")
    return found


def samples_of(told: list[Part]) -> list[list[str]]:
    """The samples of every step's global batch, in order, whichever ranks trained on them."""
    by_rank = {part["data rank"]: part["samples"] for part in told}
    assert all(part["samples"] == by_rank[part["data rank"]] for part in told), "ranks of a replica see the same"
    steps = range(len(told[0]["samples"]))
    return [[name for rank in sorted(by_rank) for name in by_rank[rank][step]] for step in steps]


def export_and_tell(processes: Processes, made: Engine, sized: ModelConfig, folder: Path) -> Any:
    """Writes a Hugging Face directory; on rank 0, the engine's logits and those of what plain transformers reads."""
    from transformers import AutoModelForCausalLM

    tokens = stream().batch(0, 0, 4).tokens
    logits = made.logits(tokens)
    if not processes.first:
        weights_of(made)
        return None
    (folder / "tokenizer").mkdir()
    ids = SpecialIds(real_text.EOD_ID, real_text.PAD_ID)
    write_directory(folder / "model", sized, LENGTH, ids, made.stream_weights(), folder / "tokenizer")
    exported = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    assert logits is not None
    with torch.no_grad():
        return logits.numpy(), exported(torch.from_numpy(tokens)).logits.numpy()


def train_and_export(processes: Processes, layout: dict[str, Any], model: dict[str, Any], folder: str) -> Any:
    made, sized = started_engine(processes, "megatron", layout, **model)
    steps_of(made, 1, 3)
    return export_and_tell(processes, made, sized, Path(folder))
