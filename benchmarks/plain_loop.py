"""The peer: a training loop as one writes it by hand. The same model, tokens and threads, and nothing else.

`python -m benchmarks.plain_loop RUN_DIR` reads the configuration and the shards of a finished pretrain run, trains the
reference model with SDPA attention and torch's fused AdamW, and prints every step's tokens per second as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from kit.config import load, parse
from kit.run.directory import RunDirectory
from kit.target import Target
from recipes.data import SampleStream
from recipes.dataset import open_dataset
from recipes.model.gpt import Gpt
from recipes.pretrain.config import PretrainConfig


def main(run: RunDirectory) -> list[float]:
    """Trains for the run's number of steps and returns tokens per second of every step."""
    config = parse(PretrainConfig, run.config(), str(run.config_path))
    torch.set_num_threads(int(load(Target, run.target_path).threads_per_process))
    torch.manual_seed(config.seed)
    dataset = open_dataset(run)
    stream = SampleStream(dataset.tokens("train"), config.data.sequence_length, config.seed)
    model = Gpt(config.model.with_vocab(dataset.card.tokenizer.vocab_size))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.optimizer.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    size, rates = config.data.global_batch_samples, []
    for step in range(1, config.budget.steps + 1):
        started = time.perf_counter()
        batch = stream.batch(step, (step - 1) * size, step * size)
        logits = model(torch.from_numpy(batch.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        rates.append(config.data.global_batch_tokens / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    print(json.dumps(main(RunDirectory.open(Path(sys.argv[1])))))
