"""The reference model, its Hugging Face directory, and what transformers makes of it are one model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

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


def sized(tied: bool) -> ModelConfig:
    return ModelConfig(
        layers=3, hidden=64, heads=4, kv_heads=2, ffn=176, vocab=256, rope_base=20000.0, norm_eps=1e-6, tied=tied
    )


def write(folder: Path, config: ModelConfig) -> Path:
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.model").write_bytes(b"pieces")
    tensors = ((name, first_tensor(config, 3, name) * 3) for name in config.tensor_shapes())
    huggingface.write_directory(folder / "model", config, 64, IDS, tensors, tokenizer)
    return folder / "model"


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_computes_the_same_logits(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    directory = write(tmp_path, sized(tied))
    reference = Gpt(sized(tied))
    read = weight_files.weights_reader(directory)
    reference.load_state_dict({name: read(name) for name in reference.state_dict()})
    tokens = torch.from_numpy(SampleStream(real_text.byte_tokens(), 64, seed=1).batch(0, 0, 4).tokens)
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        expected, logits = loaded(tokens).logits, reference(tokens)
    assert expected.abs().max() > 0.5, "logits near zero would agree whatever the model"
    assert (logits - expected).abs().max().item() < 1e-5


def test_state_dict_names_are_the_canonical_names() -> None:
    for tied in (False, True):
        assert {n: tuple(t.shape) for n, t in Gpt(sized(tied)).state_dict().items()} == sized(tied).tensor_shapes()


def test_weights_come_back_bit_by_bit(tmp_path: Path) -> None:
    config = sized(False)
    directory = write(tmp_path, config)
    loaded = load_file(directory / "model.safetensors")
    assert set(loaded) == set(config.tensor_shapes())
    for name, tensor in loaded.items():
        assert torch.equal(tensor, first_tensor(config, 3, name) * 3)
    assert (directory / "tokenizer.model").read_bytes() == b"pieces"


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    assert families.model_config(write(tmp_path, sized(True))) == sized(True)


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="gpt2"):
        families.model_config(tmp_path)


def test_a_failed_write_leaves_the_old_directory_and_nothing_else(tmp_path: Path) -> None:
    directory = write(tmp_path, sized(False))
    before = (directory / "model.safetensors").read_bytes()

    def tensors():
        yield "model.embed_tokens.weight", partial(first_tensor, sized(False), 4)("model.embed_tokens.weight")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFailure, match="no space left"):
        huggingface.write_directory(directory, sized(False), 64, IDS, tensors(), tmp_path / "tokenizer")
    assert (directory / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "model.partial").exists()
