"""The reference model, its Hugging Face directory, and what transformers makes of it are one model."""

from __future__ import annotations

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_text
import torch
from safetensors.torch import load_file

from kit.errors import RunFailure, UserError
from recipes.data import SampleStream
from recipes.model import families, huggingface, weight_files
from recipes.model.config import ModelConfig
from recipes.model.gpt import Gpt
from recipes.model.init import first_tensor

IDS = families.SpecialIds(eod=2, pad=3)


MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kv_heads": 2, "ffn": 176, "rope_base": 20000.0, "norm_eps": 1e-6},
    "llama, tied": {"kv_heads": 2, "ffn": 176, "rope_base": 20000.0, "norm_eps": 1e-6, "tied": True},
    "gpt2": {"family": "gpt2", "positions": 72, "ffn": 176},
    "gpt2, untied": {"family": "gpt2", "positions": 64, "norm_eps": 1e-6, "tied": False},
}


def sized(model: str) -> ModelConfig:
    return ModelConfig.model_validate({"layers": 3, "hidden": 64, "heads": 4, "vocab": 256} | MODELS[model])


def weights(config: ModelConfig, name: str) -> torch.Tensor:
    """Large weights, norms that aren't one and biases that aren't nothing."""
    noise = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    first = first_tensor(config, 3, name)
    return first + torch.empty_like(first).normal_(0.0, 0.06, generator=noise)


def write(folder: Path, config: ModelConfig) -> Path:
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.model").write_bytes(b"pieces")
    tensors = ((name, weights(config, name)) for name in config.tensor_shapes())
    huggingface.write_directory(folder / "model", config, 64, IDS, tensors, tokenizer)
    return folder / "model"


@pytest.mark.parametrize("model", MODELS)
def test_transformers_computes_the_same_logits(tmp_path: Path, model: str) -> None:
    from transformers import AutoModelForCausalLM

    directory = write(tmp_path, sized(model))
    reference = Gpt(sized(model))
    read = weight_files.weights_reader(directory)
    reference.load_state_dict({name: read(name) for name in reference.state_dict()})
    tokens = torch.from_numpy(SampleStream(real_text.byte_tokens(), 64, seed=1).batch(0, 0, 4).tokens)
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        expected, logits = loaded(tokens).logits, reference(tokens)
    assert expected.abs().max() > 0.5, "logits near zero would agree whatever the model"
    assert (logits - expected).abs().max().item() < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_documents_are_texts_of_their_own(model: str) -> None:
    config = sized(model)
    reference = Gpt(config).eval()
    reference.load_state_dict({name: weights(config, name) for name in reference.state_dict()})
    tokens = torch.from_numpy(SampleStream(real_text.byte_tokens(), 64, seed=1).batch(0, 0, 1).tokens)
    documents = torch.tensor([[0] * 20 + [1] * 43 + [2]])
    with torch.no_grad():
        packed = reference(tokens, documents)
        alone = [reference(piece) for piece in tokens.split((20, 43, 1), dim=1)]
        whole = reference(tokens)
    assert (packed - torch.cat(alone, dim=1)).abs().max().item() < 1e-5
    assert (packed - whole)[:, 20:].abs().max().item() > 0.01, "documents that see one another are another text"


@pytest.mark.parametrize("model", MODELS)
def test_state_dict_names_are_the_canonical_names(model: str) -> None:
    made = Gpt(sized(model))
    assert {n: tuple(t.shape) for n, t in made.state_dict().items()} == sized(model).tensor_shapes()
    assert made.output.weight.shape == (256, 64)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_weights_come_back_bit_by_bit(tmp_path: Path, model: str) -> None:
    config = sized(model)
    directory = write(tmp_path, config)
    loaded = load_file(directory / "model.safetensors")
    assert set(loaded) == set(config.tensor_shapes())
    for name, tensor in loaded.items():
        assert torch.equal(tensor, weights(config, name))
    assert (directory / "tokenizer.model").read_bytes() == b"pieces"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_configuration_comes_back(tmp_path: Path, model: str, dropout: float) -> None:
    config = sized(model).model_copy(update={"dropout": dropout})
    assert families.model_config(write(tmp_path, config)) == config


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(UserError, match="model_type 'opt'") as refused:
        families.model_config(tmp_path)
    assert "llama, gpt2" in str(refused.value.expected)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"attention_bias": True}),
        ("llama", {"head_dim": 32}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 20000.0}}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ],
)
def test_a_variant_of_a_family_is_refused_but_its_sizes_can_be_read(
    tmp_path: Path, model: str, change: dict[str, Any]
) -> None:
    file = write(tmp_path, sized(model)) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as refused:
        families.model_config(file.parent)
    assert str(file) in refused.value.found
    assert families.model_config(file.parent, exact=False).layers == 3


def test_a_failed_write_leaves_the_old_directory_and_nothing_else(tmp_path: Path) -> None:
    directory = write(tmp_path, sized("llama"))
    before = (directory / "model.safetensors").read_bytes()

    def tensors():
        yield "model.embed_tokens.weight", partial(first_tensor, sized("llama"), 4)("model.embed_tokens.weight")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFailure, match="no space left"):
        huggingface.write_directory(directory, sized("llama"), 64, IDS, tensors(), tmp_path / "tokenizer")
    assert (directory / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "model.partial").exists()
