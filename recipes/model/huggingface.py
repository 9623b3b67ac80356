"""A model as a Hugging Face directory: config.json, model.safetensors, generation_config.json, tokenizer files."""

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
from recipes.model.weight_files import WEIGHTS, write_safetensors


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


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(data, indent=2) + "\n")
