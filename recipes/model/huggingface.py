"""A model as a Hugging Face directory: config.json, model.safetensors, generation_config.json, tokenizer files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from kit.errors import UserError
from kit.files import atomic_write, disk_full_as_failure, require_file, sync_folder
from recipes.model.config import ModelConfig

WEIGHTS = "model.safetensors"


class SpecialIds(NamedTuple):
    """Token ids that a model directory names. Documents end with `eod`, so it also begins a text."""

    eod: int
    pad: int


def hugging_face_config(config: ModelConfig, sequence_length: int, ids: SpecialIds) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sequence_length,
        "initializer_range": config.init_std,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        # Readers before transformers 5 look for these two names.
        "rope_theta": config.rope_base,
        "torch_dtype": "float32",
        "dtype": "float32",
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids.eod,
        "eos_token_id": ids.eod,
        "pad_token_id": ids.pad,
        "use_cache": True,
    }


def model_config(directory: Path) -> ModelConfig:
    """The model that a directory's config.json describes.

    Raises:
        UserError: If it is missing or describes another family.
    """
    path = require_file(directory / "config.json", "the config.json of a Hugging Face model")
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("model_type") != "llama" or data.get("attention_bias") or data.get("mlp_bias"):
        raise UserError(
            f"{path}: model_type {data.get('model_type')!r}",
            expected="a Llama model without biases",
            action="choose a model of that family",
        )
    base = (data.get("rope_parameters") or {}).get("rope_theta") or data.get("rope_theta", 10000.0)
    return ModelConfig(
        layers=data["num_hidden_layers"],
        hidden=data["hidden_size"],
        heads=data["num_attention_heads"],
        kv_heads=data.get("num_key_value_heads", data["num_attention_heads"]),
        ffn=data["intermediate_size"],
        vocab=data["vocab_size"],
        rope_base=base,
        norm_eps=data["rms_norm_eps"],
        tied=data.get("tie_word_embeddings", False),
        init_std=data.get("initializer_range", 0.02),
    )


def write_directory(
    directory: Path,
    config: ModelConfig,
    sequence_length: int,
    ids: SpecialIds,
    tensors: Iterable[tuple[str, torch.Tensor]],
    tokenizer: Path,
) -> None:
    """Writes a model directory; it gets its name when it is complete.

    Args:
        directory: Where; one that exists is replaced.
        config: The model, vocabulary filled in.
        sequence_length: Longest sequence it was trained on.
        ids: Special tokens.
        tensors: (Hugging Face name, whole fp32 tensor on the CPU), in the order of `config.tensor_shapes()`.
        tokenizer: Folder whose files are copied beside the weights.

    Raises:
        RunFailure: If the disk is full; a directory that was there before still is.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_full_as_failure(partial):
            partial.mkdir(parents=True)
            write_safetensors(partial / WEIGHTS, config.tensor_shapes(), tensors)
            _write_json(partial / "config.json", hugging_face_config(config, sequence_length, ids))
            generation = {"bos_token_id": ids.eod, "eos_token_id": ids.eod, "pad_token_id": ids.pad}
            _write_json(partial / "generation_config.json", generation)
            for file in sorted(path for path in tokenizer.iterdir() if path.is_file()):
                shutil.copyfile(file, partial / file.name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(partial, directory)
    sync_folder(directory.parent)


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, torch.Tensor]]
) -> None:
    """Writes fp32 tensors one after another, so that only one of them need be in memory.

    The format: uint64 length of the header, header (JSON with dtype, shape and offsets), data (little-endian).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        stop = start + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        expected = iter(shapes.items())
        for name, tensor in tensors:
            assert (name, tuple(tensor.shape)) == next(expected), f"{name} out of order or of a wrong shape"
            file.write(tensor.contiguous().to(torch.float32).numpy().astype("<f4", copy=False).tobytes())
        assert next(expected, None) is None, "tensors are missing"
        file.flush()
        os.fsync(file.fileno())


def weights_reader(directory: Path) -> Callable[[str], torch.Tensor]:
    """A function from Hugging Face name to whole tensor (fp32, CPU), reading one at a time.

    Raises:
        UserError: If the directory has no model.safetensors.
    """
    path = require_file(directory / WEIGHTS, "the weights of a Hugging Face model in one safetensors file")

    def read(name: str) -> torch.Tensor:
        with safe_open(str(path), "pt") as file:
            return file.get_tensor(name).float()

    return read


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(data, indent=2) + "\n")
