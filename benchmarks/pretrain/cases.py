"""What is trained: the kit's own recipes, with the batch and length of the comparison, on real text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.pretrain.turns import ROOT
from kit.config import parse
from kit.flops import ModelShape, flops_per_token, non_embedding_parameters, parameter_count
from kit.run.directory import RunDirectory, newest_finished
from kit.tokens.card import read_card
from launch.plan import make_plan
from launch.prepare import prepare
from recipes.pretrain.config import PretrainConfig

CACHE = ROOT / ".cache" / "bench-pretrain"
VOCABULARY, SMALL_VOCABULARY = 32000, 1024
ENDLESS = 100_000
"""Steps of a run that is ended from outside."""

# A constant learning rate, and nothing beside training.
PLAIN = (
    f"budget={{steps: {ENDLESS}}}",
    "schedule={warmup_steps: 0, minimum_ratio: 1.0}",
    "optimizer.learning_rate=3e-4",
    "validation={samples: 2}",
    "checkpoint={every_steps: null}",
    "export=false",
)


class Case(NamedTuple):
    """A recipe and its batch.

    Attributes:
        recipe: by its short name.
        samples, length: of a global batch.
        steps: of one turn.
        sets: further changes of the recipe.
    """

    recipe: str
    samples: int
    length: int
    steps: int
    sets: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.samples * self.length

    def assignments(self, *more: str) -> list[str]:
        """The recipe's changes, as the command line takes them."""
        data = f"data={{sequence_length: {self.length}, global_batch_samples: {self.samples}, "
        return [*PLAIN, data + f"micro_batch_samples: {self.samples}}}", *self.sets, *more]


CASES = {
    "10m": Case("pretrain/10m", samples=4, length=512, steps=3),
    "124m": Case("pretrain/124m", samples=1, length=1024, steps=1),
}
TINY = Case(
    "pretrain/10m",
    samples=4,
    length=128,
    steps=2,
    sets=("model={layers: 4, hidden: 64, heads: 4, kv_heads: 2, ffn: 192}",),
)
"""For --quick: small enough that starting outweighs it."""


def text_run(cache: Path, vocabulary: int = VOCABULARY) -> RunDirectory:
    """Real text as token ids: the demo's crawl records with a larger tokenizer, made once.

    Raises:
        RunFailure: If data preparation fails.
    """
    runs = cache / f"text-{vocabulary}"
    sets = ["--set", f"tokenizer.vocab_size={vocabulary}", "--runs", str(runs)]
    found = newest_finished([RunDirectory.open(path) for path in sorted(runs.glob("*-data_prep-*"))], "data_prep")
    if found is None:
        print("preparing the text (once)", flush=True)
        command = [sys.executable, "-m", "launch.cli", "run", "data_prep/demo", *sets, "--json"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found = RunDirectory.open(Path(json.loads(done.stdout.splitlines()[-1])["path"]))
    return found


def make_run(case: Case, text: RunDirectory, runs: Path, threads: int, sets: Sequence[str] = ()) -> RunDirectory:
    """A run directory as `slipway run` makes it, which nobody has started."""
    target = ["device=cpu", f"threads_per_process={threads}"]
    plan = make_plan(case.recipe, "laptop", case.assignments(*sets), {}, target)
    return prepare(plan, runs, {"data": text}, key="sha256:0", role="benchmark")


def config_of(run: RunDirectory) -> PretrainConfig:
    """The resolved recipe of a run."""
    return parse(PretrainConfig, run.config(), str(run.config_path))


def shape_of(run: RunDirectory, text: RunDirectory) -> ModelShape:
    """The sizes of a run's model."""
    config = config_of(run)
    assert config.model is not None
    vocabulary = read_card(text.artifacts / "card.json").tokenizer.vocab_size
    return config.model.with_vocab(vocabulary, config.data.sequence_length).shape(config.data.sequence_length)


def facts_of(case: Case, run: RunDirectory, text: RunDirectory) -> dict[str, float]:
    """What the figures belong to."""
    shape = shape_of(run, text)
    return {
        "parameters_non_embedding": non_embedding_parameters(shape),
        "parameters": parameter_count(shape),
        "vocabulary": shape.vocab,
        "batch_samples": case.samples,
        "sequence_length": case.length,
        "flops_per_token": flops_per_token("megatron", shape),
    }
