"""What ranks do in the tests of documents and sources: train on samples of several documents, of two sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import real_text
import torch
from engine_programs import BATCH, LENGTH, RATE, started_engine, weights_of

from recipes.blend import BlendStream, shares, source_seed
from recipes.data import Batch, Ids, SampleStream, batches
from recipes.distributed.processes import Processes
from recipes.engines.megatron.engine import MegatronEngine
from recipes.engines.protocol import Engine

NEWLINE = ord("\n")
BLEND = {"first": 3.0, "second": 1.0}
STEPS = 4

RECIPE = {
    "data": {"blend": BLEND, "reset_attention": True},
    "parents": dict.fromkeys(BLEND, "last:data_prep"),
}


def blended(seed: int = 1, *, masked: bool = True) -> BlendStream:
    """Two halves of the text; every line is a document."""
    text = real_text.byte_tokens()
    halves = zip(BLEND, np.array_split(text, 2), strict=True)
    eod_id = NEWLINE if masked else None
    streams = {name: SampleStream(half, LENGTH, source_seed(seed, name), eod_id=eod_id) for name, half in halves}
    return BlendStream(streams, shares(BLEND), seed)


def batch_of(engine: Engine, step: int) -> Batch:
    return next(batches(blended(), range(step, step + 1), BATCH, engine.data_rank, engine.data_degree))


def train_and_tell(
    processes: Processes,
    engine: str,
    layout: dict[str, Any],
    model: dict[str, Any],
    recompute: str = "none",
    precision: str = "fp32",
) -> dict[str, Any]:
    recipe = RECIPE | {"recompute": recompute, "precision": precision}
    made, _ = started_engine(processes, engine, layout, recipe=recipe, **model)
    results = [made.train_step(batch_of(made, step), RATE) for step in range(1, STEPS + 1)]
    alone = replace(batch_of(made, 1), sources=None)
    return {
        "curve": [(result.loss, result.grad_norm) for result in results],
        "by source": [dict(result.extra) for result in results],
        "validation": made.mean_loss([alone]),
        "weights": weights_of(made),
    }


def logits_of(made: Engine, tokens: Ids, documents: Ids) -> torch.Tensor:
    """Logits with documents kept apart, from the engine's own forward pass; one process."""
    if isinstance(made, MegatronEngine):
        from recipes.engines.megatron.feed import forward_logits

        chunk = made._wrapped[0]
        feed = made._feeder.feed([Batch(0, tokens, tokens, documents=documents)], len(tokens))
        chunk.eval()
        with torch.no_grad():
            return cast(torch.Tensor, forward_logits(feed, chunk)[0])
    with torch.no_grad():
        return cast(torch.Tensor, made._model(torch.from_numpy(tokens), torch.from_numpy(documents)))  # type: ignore[attr-defined]


def with_other_documents_before(processes: Processes, engine: str, model: dict[str, Any]) -> dict[str, np.ndarray]:
    """The logits of a sample's last document, behind the text of `before`, behind another, alone, and unmasked."""
    made, _ = started_engine(processes, engine, {}, recipe=RECIPE, **model)
    text = real_text.byte_tokens().astype(np.int64)
    mine, others = text[: LENGTH // 2], text[5000 : 5000 + LENGTH // 2]
    apart = np.repeat([0, 1], LENGTH // 2)[None]

    def of(before: Ids, documents: Ids) -> torch.Tensor:
        tokens = np.concatenate((before, mine))[None]
        return logits_of(made, tokens, documents)[0, LENGTH // 2 :]

    found = {
        "behind one": of(others, apart),
        "behind another": of(others[::-1].copy(), apart),
        "alone": logits_of(made, np.concatenate((mine, others))[None], apart)[0, : LENGTH // 2],
        "unmasked": of(others, np.zeros_like(apart)),
    }
    return {name: logits.numpy().copy() for name, logits in found.items()}


def masks_seen(processes: Processes, masked: bool) -> set[str]:
    """How torch's attention kernel was called in a step: with a mask or as causal."""
    from recipes.engines.megatron import attention

    recipe = RECIPE | {"data": {"blend": BLEND, "reset_attention": masked}}
    made, _ = started_engine(processes, "megatron", {}, recipe=recipe)
    kernel, seen = attention.F.scaled_dot_product_attention, set()

    def watched(*tensors: Any, **words: Any) -> Any:
        seen.add("causal" if words["is_causal"] and words["attn_mask"] is None else "mask")
        return kernel(*tensors, **words)

    attention.F.scaled_dot_product_attention = watched
    try:
        made.train_step(next(batches(blended(masked=masked), range(1, 2), BATCH)), RATE)
    finally:
        attention.F.scaled_dot_product_attention = kernel
    return seen
