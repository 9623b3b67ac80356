"""Safetensors files, written and read tensor by tensor: never a whole model in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from kit.files import require_file

WEIGHTS = "model.safetensors"


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
