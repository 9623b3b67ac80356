"""A Hugging Face directory -> four ranks, tensor x pipeline -> such a directory: the same bits, for both families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import real_text
import torch
from rank_processes import run_on_ranks
from stage_run import write_run

from kit.config import parse
from kit.run.directory import RunDirectory
from recipes.dataset import open_datasets
from recipes.distributed.processes import Processes
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.huggingface import write_directory
from recipes.model.weight_files import INDEX, weights_reader
from recipes.pretrain.config import PretrainConfig

STEPS, LENGTH, VOCAB = 2, 32, 512
SMALL_GIB = 50_000 / 2**30
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"layers": 4, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64},
    "gpt2": {"layers": 4, "hidden": 32, "heads": 4, "kv_heads": 4, "ffn": 128, "tied": True, "positions": 64},
}


def value(model: ModelConfig, name: str) -> torch.Tensor:
    """Nothing of a model's own first values: no zeros and ones that a wrong place would hide."""
    place = list(model.tensor_shapes()).index(name)
    drawn = torch.randn(model.tensor_shapes()[name], generator=torch.Generator().manual_seed(place)) / 20
    return drawn + 1 if "norm" in name or ("ln_" in name and name.endswith("weight")) else drawn


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    real_text.write_dataset(folder / "artifacts", VOCAB)
    return folder


def make_run(root: Path, data: Path, model: ModelConfig, precision: str) -> RunDirectory:
    tensors = ((name, value(model, name)) for name in model.tensor_shapes())
    ids, tokenizer = SpecialIds(real_text.EOD_ID, real_text.PAD_ID), data / "artifacts" / "tokenizer"
    write_directory(root / "source", model, 64, ids, tensors, tokenizer, shard_gib=SMALL_GIB)
    recipe = {
        "name": "goes-on",
        "start_from": str(root / "source"),
        "precision": precision,
        "layout": {"tensor": 2, "pipeline": 2},
        "data": {"sequence_length": LENGTH, "global_batch_samples": 4, "micro_batch_samples": 1},
        "optimizer": {"learning_rate": 1e-3},
        "budget": {"steps": STEPS},
        "validation": {"samples": 4},
        "checkpoint": {"every_steps": 1},
        "logging": {"peak_seconds": 0.01},
    }
    config = parse(PretrainConfig, recipe, "test")
    return write_run(root, config, {"data": data})


def train(processes: Processes, path: str) -> None:
    """Does what the stage does on these ranks."""
    from recipes.pretrain.source import find_source
    from recipes.training.language_model import LanguageModelTraining

    run = RunDirectory.open(Path(path))
    config = parse(PretrainConfig, run.config(), "config.yaml")
    datasets = open_datasets(run, config.data.blend)
    source = find_source(config, datasets["data"])
    LanguageModelTraining(config, run, datasets, source, processes, export=True).go()


def export_and_compare(processes: Processes, path: str, target: str) -> float:
    """Does what `slipway export --verify` does, from the last checkpoint, into several files."""
    from recipes.export.source import find_exported, held_out
    from recipes.export.verify import held_out_tokens, largest_difference
    from recipes.export.write import Form, write_exported

    run = RunDirectory.open(Path(path))
    exported = find_exported(run, STEPS)
    write_exported(exported, run, Path(target), Form("fp32", SMALL_GIB))
    tokens = held_out_tokens(exported, held_out(run, exported.recipe))
    return largest_difference(exported, Path(target), "fp32", tokens, processes)


@pytest.mark.parametrize(("family", "precision"), [("llama", "fp32"), ("gpt2", "fp32"), ("llama", "bf16")])
def test_nothing_is_lost_on_the_way_in_and_out(tmp_path: Path, data: Path, family: str, precision: str) -> None:
    model = parse(ModelConfig, {"family": family, "vocab": VOCAB, **SIZES[family]}, "test")
    run = make_run(tmp_path, data, model, precision)
    run_on_ranks(train, 4, str(run.path), timeout_seconds=300)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    begun, ended = (weights_reader(run.artifacts / name, model.tensor_shapes()) for name in ("untrained", "model"))
    for name in model.tensor_shapes():
        assert torch.equal(begun(name), value(model, name).to(kind).float()), name
    first = next(iter(model.tensor_shapes()))
    assert not torch.equal(ended(first), begun(first)), "a model that was not trained would agree with its source"

    target = tmp_path / "exported"
    (difference,) = run_on_ranks(export_and_compare, 1, str(run.path), str(target), timeout_seconds=300)
    assert (target / INDEX).is_file()
    stored = weights_reader(target, model.tensor_shapes())
    for name in model.tensor_shapes():
        assert torch.equal(stored(name), ended(name)), name
    assert difference < 1e-4
