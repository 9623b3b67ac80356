"""How far the loss curve of every parallel layout is from that of one process: 20 steps in fp32, a small model.

python -m benchmarks.pretrain.layouts [NAME ...]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import recipes.quiet  # noqa: F401  before anything imports torch
from benchmarks.pretrain.cases import CACHE, SMALL_VOCABULARY, text_run
from kit.config import parse
from kit.tokens.card import read_card
from kit.tokens.shards import Shard
from recipes.pretrain.config import PretrainConfig

STEPS, LENGTH, SAMPLES, RATE = 20, 64, 8, 1e-3
TIMEOUT = timedelta(seconds=180)
MODEL = {"layers": 8, "hidden": 64, "heads": 8, "kv_heads": 4, "ffn": 192}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"tied": True},
    "llama, one key a head": {"kv_heads": 8},
    "gpt2": {"family": "gpt2", "kv_heads": 8, "tied": True},
}
"""Models, each with a one-process curve of its own; the first one shares each key among two heads."""


class Cut(NamedTuple):
    """A layout of a variant."""

    layout: Mapping[str, Any]
    variant: str = "llama"
    recipe: Mapping[str, Any] = {}

    @property
    def ranks(self) -> int:
        """Processes."""
        degrees = [self.layout.get(axis, 1) for axis in ("data", "tensor", "pipeline", "context")]
        return degrees[0] * degrees[1] * degrees[2] * degrees[3]


LAYOUTS = {
    "data 2": Cut({"data": 2}),
    "data 4": Cut({"data": 4}),
    "data 8": Cut({"data": 8}),
    "data 2, whole optimizer": Cut({"data": 2}, recipe={"optimizer": {"distributed": False}}),
    "tensor 2": Cut({"tensor": 2}),
    "tensor 4": Cut({"tensor": 4}),
    "tensor 8": Cut({"tensor": 8}, "llama, one key a head"),
    "tensor 2, sequence": Cut({"tensor": 2, "sequence": True}),
    "pipeline 2": Cut({"pipeline": 2}),
    "pipeline 4": Cut({"pipeline": 4}),
    "pipeline 8": Cut({"pipeline": 8}),
    "pipeline 2, interleave 2": Cut({"pipeline": 2, "interleave": 2}),
    "pipeline 4, interleave 2": Cut({"pipeline": 4, "interleave": 2}),
    "context 2": Cut({"context": 2}),
    "context 4": Cut({"context": 4}),
    "tensor 2 x pipeline 2": Cut({"tensor": 2, "pipeline": 2}),
    "tensor 2 x pipeline 2 x data 2, sequence": Cut({"tensor": 2, "pipeline": 2, "data": 2, "sequence": True}),
    "tensor 2 x pipeline 2 x context 2": Cut({"tensor": 2, "pipeline": 2, "context": 2}),
    "tensor 2 x context 2, sequence": Cut({"tensor": 2, "context": 2, "sequence": True}),
    "tensor 2, tied": Cut({"tensor": 2}, "llama, tied"),
    "pipeline 2, tied": Cut({"pipeline": 2}, "llama, tied"),
    "one process, full recompute": Cut({}, recipe={"recompute": "full"}),
    "one process, selective recompute": Cut({}, recipe={"recompute": "selective"}),
    "tensor 2, full recompute": Cut({"tensor": 2}, recipe={"recompute": "full"}),
    "pipeline 2, full recompute": Cut({"pipeline": 2}, recipe={"recompute": "full"}),
    "tensor 2, gpt2": Cut({"tensor": 2}, "gpt2"),
    "pipeline 2, gpt2": Cut({"pipeline": 2}, "gpt2"),
    "tensor 2 x pipeline 2, gpt2": Cut({"tensor": 2, "pipeline": 2}, "gpt2"),
}
QUICK = ("data 2", "tensor 2", "pipeline 2")


def configuration(cut: Cut) -> PretrainConfig:
    """The recipe of a cut."""
    data = {
        "name": "layouts",
        "layout": dict(cut.layout),
        "model": {**MODEL, **VARIANTS[cut.variant]},
        "data": {"sequence_length": LENGTH, "global_batch_samples": SAMPLES, "micro_batch_samples": 1},
        "budget": {"steps": STEPS},
        **cut.recipe,
    }
    data["optimizer"] = {"learning_rate": RATE, **cut.recipe.get("optimizer", {})}
    return parse(PretrainConfig, data, "benchmarks/pretrain/layouts.py")


def curve(cut: Cut, artifacts: Path) -> list[float]:
    """The losses of a cut's steps, from processes of its own.

    Raises:
        Exception: Whatever a rank raised.
    """
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.pretrain.layouts", "recipes.engines.megatron.engine"])
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(max_workers=cut.ranks, mp_context=context) as pool,
    ):
        store = str(Path(folder) / "store")
        ranks = [pool.submit(_rank, rank, cut, store, artifacts) for rank in range(cut.ranks)]
        losses = [rank.result() for rank in ranks]
    assert all(told == losses[0] for told in losses), "every rank knows the whole job's loss"
    return losses[0]


def _rank(rank: int, cut: Cut, store: str, artifacts: Path) -> list[float]:
    import torch
    import torch.distributed as dist

    from recipes.data import SampleStream, batches
    from recipes.distributed.processes import join_store, leave
    from recipes.engines.table import build_engine
    from recipes.model.init import first_tensor

    torch.set_num_threads(1)
    processes = join_store(dist.FileStore(store, cut.ranks), rank, cut.ranks, torch.device("cpu"), TIMEOUT)
    card = read_card(artifacts / "card.json")
    config = configuration(cut)
    assert config.model is not None
    sizes = config.model.with_vocab(card.tokenizer.vocab_size, LENGTH)
    engine = build_engine(config, sizes, processes, torch.float32)
    engine.load_weights(partial(first_tensor, sizes, config.seed))
    stream = SampleStream(Shard(artifacts / card.splits["train"].prefix).tokens, LENGTH, config.seed)
    feed = batches(stream, range(1, STEPS + 1), SAMPLES, engine.data_rank, engine.data_degree)
    losses = [engine.train_step(batch, RATE).loss for batch in feed]
    leave()
    return losses


def measure(cache_folder: Path, names: Sequence[str]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The largest difference of every layout from one process; and why those that are None could not run."""
    artifacts = text_run(cache_folder, SMALL_VOCABULARY).artifacts
    single = cache(lambda variant: curve(Cut({}, variant), artifacts))
    found: dict[str, float | None] = {}
    left_out: dict[str, str] = {}
    for name in names:
        cut = LAYOUTS[name]
        try:
            pairs = zip(curve(cut, artifacts), single(cut.variant), strict=True)
            found[name] = max(abs(one - other) for one, other in pairs)
        except Exception as error:  # an engine may refuse a layout; the others are still worth a figure
            found[name], left_out[name] = None, str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"  {name}: {left_out.get(name) or format(found[name] or 0.0, '.1e')}", flush=True)
    return found, left_out


if __name__ == "__main__":
    measured, without = measure(CACHE, sys.argv[1:] or list(LAYOUTS))
    print(json.dumps({"layout_max_loss_difference": measured, "left_out": without}))
