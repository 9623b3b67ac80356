"""A model as a Hugging Face directory: config.json, weights, generation_config.json, tokenizer files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from kit.files import atomic_write, disk_full_as_failure, sync_folder
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds, hugging_face_config
from recipes.model.weight_files import SHARD_GIB, WRITTEN, is_weights, write_weights

NO_TOKENIZER = ("config.json", "generation_config.json")


def write_directory(
    directory: Path,
    config: ModelConfig,
    sequence_length: int,
    ids: SpecialIds,
    tensors: Iterable[tuple[str, torch.Tensor]],
    tokenizer: Path,
    *,
    dtype: str = "fp32",
    shard_gib: float = SHARD_GIB,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes a model directory; it gets its name when it is complete.

    Args:
        directory: Where; one that exists is replaced.
        config: The model, vocabulary filled in.
        sequence_length: Longest sequence it was trained on.
        ids: Special tokens.
        tensors: (Hugging Face name, whole tensor on the CPU), in the order of `config.tensor_shapes()`.
        tokenizer: Folder whose files are copied beside the weights; what is of a model there stays behind.
        dtype: "fp32" or "bf16": what the weights are on disk.
        shard_gib: Largest file of weights.
        beside: Further JSON files, by name.

    Raises:
        RunFailure: If the disk is full; a directory that was there before still is.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_full_as_failure(partial):
            partial.mkdir(parents=True)
            write_weights(partial, config.tensor_shapes(), tensors, dtype=dtype, shard_gib=shard_gib)
            word = str(WRITTEN[dtype][1]).removeprefix("torch.")
            settings = hugging_face_config(config, sequence_length, ids) | {"dtype": word, "torch_dtype": word}
            _write_json(partial / "config.json", settings)
            generation = {"bos_token_id": ids.eod, "eos_token_id": ids.eod, "pad_token_id": ids.pad}
            _write_json(partial / "generation_config.json", generation)
            for name, data in (beside or {}).items():
                _write_json(partial / name, data)
            _copy_tokenizer(tokenizer, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(partial, directory)
    sync_folder(directory.parent)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        if file.name not in NO_TOKENIZER and not is_weights(file.name):
            shutil.copyfile(file, folder / file.name)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(data, indent=2) + "\n")
