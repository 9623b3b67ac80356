"""Weights in one file or several, tensor by tensor; whatever is wrong with them is named."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit.errors import UserError
from recipes.model.weight_files import INDEX, WEIGHTS, weights_reader, write_weights

SHAPES: dict[str, tuple[int, ...]] = {
    "model.a": (64, 8),
    "model.b": (64, 16),
    "lm_head.weight": (96, 8),
    "model.d": (7,),
}
ONE_FILE_GIB, SMALL_GIB = 4.0, 4096 / 2**30


def value(name: str) -> torch.Tensor:
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(len(name) + ord(name[-1])))


def written(folder: Path, dtype: str = "fp32", shard_gib: float = SMALL_GIB) -> Path:
    folder.mkdir()
    write_weights(folder, SHAPES, ((name, value(name)) for name in SHAPES), dtype=dtype, shard_gib=shard_gib)
    return folder


@pytest.mark.parametrize("shard_gib", [ONE_FILE_GIB, SMALL_GIB])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_tensors_come_back_bit_by_bit(tmp_path: Path, dtype: str, shard_gib: float) -> None:
    folder = written(tmp_path / "model", dtype, shard_gib)
    read = weights_reader(folder, SHAPES)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    for name in SHAPES:
        assert read(name).dtype == kind
        assert torch.equal(read(name), value(name).to(kind))


def test_files_end_before_the_size_and_the_index_says_where_everything_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "model")
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * sum(torch.Size(shape).numel() for shape in SHAPES.values())
    assert sorted(path.name for path in folder.iterdir()) == sorted({*index["weight_map"].values(), INDEX})
    held = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    assert len(held) == 3
    for name, file in index["weight_map"].items():
        assert torch.equal(held[file][name], value(name))
    assert all(len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 4096 for tensors in held.values())


def test_names_without_the_first_word_are_found(tmp_path: Path) -> None:
    shapes = {"wte.weight": (4, 2), "h.0.attn.bias": (1, 1, 8, 8), "lm_head.weight": (4, 2)}
    tmp_path.joinpath("model").mkdir()
    write_weights(tmp_path / "model", shapes, ((name, torch.ones(shape)) for name, shape in shapes.items()))
    read = weights_reader(tmp_path / "model", {"transformer.wte.weight": (4, 2)})
    assert torch.equal(read("transformer.wte.weight"), torch.ones(4, 2))


def cut(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    path.write_bytes(path.read_bytes()[:-3])


def spoil_header(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    content = bytearray(path.read_bytes())
    content[12:20] = b"\xff" * 8
    path.write_bytes(content)


def forget(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.c"] = index["weight_map"]["model.a"]
    (folder / INDEX).write_text(json.dumps(index))


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


FIRST = "model-00001-of-00003.safetensors"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, f"{FIRST} has "),
        (spoil_header, f"{FIRST}: its header is damaged"),
        (lambda folder: (folder / FIRST).write_bytes(b"abc"), f"{FIRST}: 3 bytes"),
        (lambda folder: (folder / FIRST).unlink(), f"{FIRST} is missing"),
        (lambda folder: (folder / INDEX).write_text("{"), f"{INDEX} is damaged"),
        (forget, f"{FIRST}: no tensor model.c"),
        (empty, f"neither {WEIGHTS} nor {INDEX}"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = written(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        weights_reader(folder, SHAPES)
    assert caught.value.expected and caught.value.action


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (SHAPES | {"model.e": (1,)}, "no tensor model.e"),
        (SHAPES | {"model.b": (16, 64)}, "model.b has the shape [64, 16]"),
        ({name: shape for name, shape in SHAPES.items() if name != "model.d"}, "model.d, of which config.json knows"),
    ],
)
def test_another_models_weights_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        weights_reader(written(tmp_path / "model"), shapes)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model.a": torch.ones(2, dtype=torch.int8)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="stored as I8"):
        weights_reader(tmp_path, {"model.a": (2,)})


LARGE = {f"tensor.{number}": (1024, 1024) for number in range(48)}


def peak_mib() -> float:
    """Largest resident memory of this process so far, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def copy_a_model(folder: str) -> None:
    """Writes 192 MiB and copies them to other files; fails if many tensors were in memory at once."""

    def drawn() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in LARGE.items():
            yield name, torch.randn(shape)

    begun = peak_mib()
    source, target = Path(folder, "source"), Path(folder, "target")
    source.mkdir()
    target.mkdir()
    write_weights(source, LARGE, drawn(), shard_gib=1.0)
    read = weights_reader(source, LARGE)
    write_weights(target, LARGE, ((name, read(name)) for name in LARGE), shard_gib=0.05)
    grown = peak_mib() - begun
    assert grown < 48, f"{grown:.0f} MiB more at the peak for tensors of 4 MiB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's count of resident memory")
def test_a_model_is_never_in_memory_whole(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=copy_a_model, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(list((tmp_path / "target").glob("*.safetensors"))) == 4
