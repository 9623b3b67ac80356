"""Safetensors files, written and read tensor by tensor: never a whole model in memory.

The format: uint64 length of the header, header (JSON with dtype, shape and offsets), data (little-endian). Models above
a size lie in several files, and `model.safetensors.index.json` says which tensor is in which.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from kit.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_GIB = 4.0
WRITTEN = {"fp32": ("F32", torch.float32), "bf16": ("BF16", torch.bfloat16)}
"""What weights may be on disk: by our name, the name in the file and torch's."""

_READ = ("F64", "F32", "F16", "BF16")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_HEADER_LIMIT = 1 << 30
_NO_WEIGHTS = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")
"""Tables that older writers kept beside the weights: they follow from the configuration."""

Shapes = Mapping[str, tuple[int, ...]]


def write_weights(
    folder: Path,
    shapes: Shapes,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    dtype: str = "fp32",
    shard_gib: float = SHARD_GIB,
) -> None:
    """Writes tensors one after another, so that only one of them need be in memory.

    Args:
        folder: Where the files go.
        shapes: Every tensor by name, in file order.
        tensors: The same names and shapes in the same order, with values, on the CPU.
        dtype: "fp32" or "bf16": what they become.
        shard_gib: A file ends before the tensor that would make its data larger; one tensor is never cut.
    """
    word, kind = WRITTEN[dtype]
    parts = _divide(shapes, kind.itemsize, int(shard_gib * 2**30))
    names = [WEIGHTS] if len(parts) == 1 else [_part_name(n, len(parts)) for n in range(1, len(parts) + 1)]
    stream = iter(tensors)
    for name, part in zip(names, parts, strict=True):
        _write_file(folder / name, part, stream, word, kind)
    assert next(stream, None) is None, "there are more tensors than shapes"
    if len(parts) > 1:
        size = kind.itemsize * sum(torch.Size(shape).numel() for shape in shapes.values())
        where = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def is_weights(name: str) -> bool:
    """Whether a file of a model directory belongs to its weights, by its name."""
    return name == INDEX or name.endswith(".safetensors")


def _part_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _divide(shapes: Shapes, item_bytes: int, limit: int) -> list[dict[str, tuple[int, ...]]]:
    parts: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = item_bytes * torch.Size(shape).numel()
        if parts[-1] and filled + size > limit:
            parts.append({})
            filled = 0
        parts[-1][name] = shape
        filled += size
    return parts


def _write_file(
    path: Path, shapes: Shapes, tensors: Iterator[tuple[str, torch.Tensor]], word: str, kind: torch.dtype
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        stop = start + kind.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": word, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            found, tensor = next(tensors, ("no tensor", torch.empty(0)))
            assert (found, tuple(tensor.shape)) == (name, tuple(shape)), f"{found} where {name} {shape} belongs"
            # Bytes without a copy; numpy has no bf16.
            file.write(tensor.to(kind).contiguous().view(-1).view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())


class StoredTensor(NamedTuple):
    """Where a tensor lies and what it is, by the header of its file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


def weights_reader(directory: Path, shapes: Shapes | None = None) -> Callable[[str], torch.Tensor]:
    """A function from Hugging Face name to whole tensor, reading one at a time.

    Tensors are on the CPU in the type that they have on disk, and not read before they are touched: a rank that copies
    a slice reads little more than the slice.

    Args:
        directory: A Hugging Face directory with model.safetensors, or several files and their index.
        shapes: What is to be there: exactly these tensors, in these shapes; None: whatever is asked for.

    Raises:
        UserError: If files or tensors are missing, damaged, too many, or of another shape.
    """
    stored = read_headers(directory)
    if shapes is not None:
        _check(directory, stored, shapes)

    def read(name: str) -> torch.Tensor:
        found = _find(stored, name)
        if found is None:
            raise _refusal(f"{directory}: no tensor {name}", "the weights of the model that config.json describes")
        with safe_open(str(found.file), "pt") as file:
            tensor: torch.Tensor = file.get_tensor(found.name)
        return tensor

    return read


def read_headers(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory by the name that it has there.

    Raises:
        UserError: If there are no weights, or files are missing or damaged.
    """
    if (directory / WEIGHTS).is_file():
        return _header(directory / WEIGHTS)
    if not (directory / INDEX).is_file():
        raise UserError(
            f"{directory}: neither {WEIGHTS} nor {INDEX}",
            expected="the weights of a Hugging Face model as safetensors",
            action="check the path; weights in another format: load them with transformers and `save_pretrained` them",
        )
    stored: dict[str, StoredTensor] = {}
    places = _read_index(directory / INDEX)
    for name in sorted(set(places.values())):
        if not (directory / name).is_file():
            raise _refusal(f"{directory / name} is missing", f"every file that {INDEX} names")
        stored |= _header(directory / name)
    for tensor, name in places.items():
        if tensor not in stored or stored[tensor].file.name != name:
            raise _refusal(f"{directory / name}: no tensor {tensor}", f"what {INDEX} says")
    return stored


def _read_index(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(name) for tensor, name in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _refusal(f"{path} is damaged", "a JSON object with `weight_map`") from None


def _header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file; its size must be what its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            raise _refusal(f"{path}: {size} bytes with a header of {length}", "a whole safetensors file")
        text = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        found = {
            name: StoredTensor(path, name, str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _refusal(f"{path}: its header is damaged", "a safetensors file") from None
    if size != 8 + length + end:
        raise _refusal(f"{path} has {size} bytes", f"{8 + length + end} bytes, as its header says")
    return found


def _find(stored: Mapping[str, StoredTensor], name: str) -> StoredTensor | None:
    """A tensor by its name; files of a bare model, GPT-2's own for one, leave the first word of names out."""
    first, _, rest = name.partition(".")
    return stored.get(name) or (stored.get(rest) if first in ("model", "transformer") else None)


def _check(directory: Path, stored: Mapping[str, StoredTensor], shapes: Shapes) -> None:
    found = {name: _find(stored, name) for name in shapes}
    wanted = f"the {len(shapes)} tensors of the model that config.json describes"
    missing = [name for name, tensor in found.items() if tensor is None]
    if missing:
        raise _refusal(f"{directory}: no tensor {_few(missing)}", wanted)
    for name, tensor in found.items():
        assert tensor is not None
        if tensor.shape != tuple(shapes[name]):
            raise _refusal(f"{tensor.file}: {name} has the shape {list(tensor.shape)}", f"{list(shapes[name])}")
        if tensor.dtype not in _READ:
            raise _refusal(f"{tensor.file}: {name} is stored as {tensor.dtype}", f"one of {', '.join(_READ)}")
    known = {tensor.name for tensor in found.values() if tensor is not None}
    # A tied model's output matrix is the embedding; some writers store it a second time.
    extra = [name for name in stored if name not in known and name != "lm_head.weight" and not _NO_WEIGHTS.search(name)]
    if extra:
        raise _refusal(f"{directory}: {_few(extra)}, of which config.json knows nothing", wanted)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refusal(found: str, expected: str) -> UserError:
    return UserError(found, expected=expected, action="copy the directory again from where it comes from")
