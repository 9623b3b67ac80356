"""Runs a test's function on several real processes joined by gloo over a FileStore: no port to choose.

The processes are forked from a server that has imported torch and every engine once, so a test pays for none.
"""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
ROOT = Path(__file__).resolve().parents[1]
PRELOAD = [
    "recipes.engines.megatron.engine",
    "recipes.engines.accelerate.engine",
    "recipes.engines.deepspeed.engine",
    "recipes.engines.megatron.stored",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "recipes.rlhf.dpo",
    "recipes.rlhf.grpo",
]


def run_on_ranks(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout_seconds: float = 120
) -> list[Any]:
    """Calls `function(processes, *arguments)` on every rank; returns what the ranks returned, by rank.

    Raises:
        AssertionError: With the traceback of the first rank that failed, or if time ran out.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        started, pipes = [], []
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            what = (inspect.getfile(function), function.__name__, arguments)
            process = context.Process(target=_rank_main, args=(rank, world_size, store, what, sender), daemon=True)
            process.start()
            sender.close()
            started.append(process)
            pipes.append(receiver)
        try:
            return _collect(pipes, timeout_seconds)
        finally:
            for process in started:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()


def _collect(pipes: list[Connection], timeout_seconds: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout_seconds
    while len(results) < len(pipes):
        left = deadline - time.monotonic()
        assert left > 0, f"after {timeout_seconds} s only ranks {sorted(results)} of {len(pipes)} have answered"
        for ready in wait([pipe for rank, pipe in enumerate(pipes) if rank not in results], timeout=left):
            rank = pipes.index(ready)  # type: ignore[arg-type]
            try:
                failed, answer = pipes[rank].recv()
            except EOFError:
                raise AssertionError(f"rank {rank} died without a word") from None
            assert not failed, f"rank {rank} failed:\n{answer}"
            results[rank] = answer
    return [results[rank] for rank in range(len(pipes))]


def _rank_main(
    rank: int, world_size: int, store: str, what: tuple[str, str, tuple[Any, ...]], sender: Connection
) -> None:
    import torch
    import torch.distributed as dist

    from recipes.distributed.processes import join_store, leave

    torch.set_num_threads(1)
    path, name, arguments = what
    try:
        processes = join_store(dist.FileStore(store, world_size), rank, world_size, torch.device("cpu"))
        answer = _load(path, name)(processes, *arguments)
        leave()
        sender.send((False, answer))
    except BaseException:
        sender.send((True, traceback.format_exc()))
    sender.close()
    # Threads of a process group whose other ranks have died can hang an ordinary exit.
    os._exit(0)


def _load(path: str, name: str) -> Callable[..., Any]:
    # Test modules have no importable names (pytest's importlib mode), so the function goes by its file.
    sys.path.insert(0, str(ROOT / "tests"))
    spec = importlib.util.spec_from_file_location("rank_program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found
