"""`start_from`: a pretraining run that goes on from a Hugging Face directory, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import real_text
import torch

from kit.config import parse
from kit.errors import UserError
from kit.tokens.check import check_shards
from recipes.dataset import Dataset
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.huggingface import write_directory
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig
from recipes.pretrain.source import find_source
from recipes.stages import STAGES

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64}
LLAMA = ModelConfig(**SIZES, vocab=512, norm_eps=1e-6, rope_base=5000.0)
GPT2 = ModelConfig(family="gpt2", layers=2, hidden=32, heads=4, kv_heads=4, ffn=128, vocab=512, tied=True, positions=48)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    real_text.write_dataset(folder)
    return Dataset(folder, check_shards(folder, fast=True))


def written(folder: Path, dataset: Dataset, model: ModelConfig) -> Path:
    tensors = ((name, first_tensor(model, 7, name)) for name in model.tensor_shapes())
    ids = SpecialIds(real_text.EOD_ID, real_text.PAD_ID)
    write_directory(folder / "model", model, 48, ids, tensors, dataset.tokenizer)
    return folder / "model"


def recipe(length: int = 32, **keys: Any) -> PretrainConfig:
    data = {"sequence_length": length, "global_batch_samples": 4}
    rest = {"name": "test", "data": data, "optimizer": {"learning_rate": 1e-3}, "budget": {"steps": 2}}
    return parse(PretrainConfig, rest | keys, "test.yaml")


@pytest.mark.parametrize("model", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_the_directory_says_what_the_model_is(tmp_path: Path, dataset: Dataset, model: ModelConfig) -> None:
    source = find_source(recipe(start_from=str(written(tmp_path, dataset, model))), dataset)
    assert source.model == model
    assert source.positions == 48
    for name in model.tensor_shapes():
        assert torch.equal(source.weights(name), first_tensor(model, 7, name))


def test_a_recipe_may_say_it_too_and_has_its_own_dropout(tmp_path: Path, dataset: Dataset) -> None:
    stated = {**SIZES, "norm_eps": 1e-6, "rope_base": 5000, "dropout": 0.1, "init_std": 0.5}
    source = find_source(recipe(start_from=str(written(tmp_path, dataset, LLAMA)), model=stated), dataset)
    assert source.model == LLAMA.model_copy(update={"dropout": 0.1})


@pytest.mark.parametrize(("key", "value"), [("layers", 4), ("vocab", 1024), ("norm_eps", 1e-5), ("tied", True)])
def test_a_recipe_that_says_another_model_is_refused_by_key(
    tmp_path: Path, dataset: Dataset, key: str, value: Any
) -> None:
    stated = {**SIZES, "norm_eps": 1e-6, "rope_base": 5000, key: value}
    config = recipe(start_from=str(written(tmp_path, dataset, LLAMA)), model=stated)
    with pytest.raises(UserError, match=f"model.{key} is {value}, and that of the model in start_from") as caught:
        find_source(config, dataset)
    assert f"model.{key}={getattr(LLAMA, key)}" in caught.value.action


def test_no_model_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="neither model nor start_from"):
        recipe()


def test_another_tokenizer_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    directory = written(tmp_path, dataset, LLAMA)
    with (directory / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="another tokenizer"):
        find_source(recipe(start_from=str(directory)), dataset)


def test_a_table_of_too_few_positions_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    directory = written(tmp_path, dataset, GPT2)
    with pytest.raises(UserError, match=r"48 positions, and data\.sequence_length is 64"):
        find_source(recipe(64, start_from=str(directory)), dataset)


def test_weights_of_another_shape_than_config_json_says_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    directory = written(tmp_path, dataset, LLAMA)
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(settings | {"intermediate_size": 128}))
    with pytest.raises(UserError, match=r"gate_proj\.weight has the shape \[64, 32\]"):
        find_source(recipe(start_from=str(directory)), dataset)


def test_a_directory_without_weights_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    directory = written(tmp_path, dataset, LLAMA)
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors"):
        find_source(recipe(start_from=str(directory)), dataset)
    shutil.rmtree(directory)
    with pytest.raises(UserError, match=r"no file at .*config\.json"):
        find_source(recipe(start_from=str(directory)), dataset)


def test_it_belongs_to_the_key_of_a_run() -> None:
    assert "start_from" in STAGES["pretrain"].inputs
