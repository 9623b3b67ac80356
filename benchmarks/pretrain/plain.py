"""The first peer: a training loop as one writes it by hand. The same model, tokens, weights and threads, nothing else.

    python -m benchmarks.pretrain.plain RUN_DIR

SDPA attention and torch's fused AdamW; it runs until its input ends.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.pretrain.cases import config_of
from benchmarks.pretrain.turns import Pace
from kit.config import load
from kit.run.directory import RunDirectory
from kit.target import Target
from recipes.data import SampleStream, batches
from recipes.dataset import open_dataset
from recipes.model.gpt import Gpt
from recipes.model.init import first_tensor
from recipes.training.config import OptimizerConfig


def adamw(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Torch's fused AdamW; matrices decay, norms don't."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)


def main(run: RunDirectory) -> None:
    """Trains, a turn at a time."""
    pace, config = Pace(), config_of(run)
    torch.set_num_threads(int(load(Target, run.target_path).threads_per_process))
    dataset = open_dataset(run)
    assert config.model is not None
    sizes = config.model.with_vocab(dataset.card.tokenizer.vocab_size, config.data.sequence_length)
    model = Gpt(sizes)
    first = partial(first_tensor, sizes, config.seed)
    model.load_state_dict({name: first(name) for name in model.state_dict()})
    optimizer = adamw(model, config.optimizer)
    stream = SampleStream(dataset.tokens("train"), config.data.sequence_length, config.seed)
    pace.start(config.data.global_batch_tokens)
    for batch in batches(stream, range(1, config.budget.steps + 1), config.data.global_batch_samples):
        pace.wait()
        logits = model(torch.from_numpy(batch.tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace.tell(loss.item())


if __name__ == "__main__":
    main(RunDirectory.open(Path(sys.argv[1])))
