"""An export from a sharded checkpoint holds a few tensors at a time, never the model."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from kit.errors import UserError
from recipes.engines.megatron.stored import stored_weights
from recipes.engines.megatron.weights import layer_rules, outer_rules
from recipes.model.config import ModelConfig
from recipes.model.weight_files import weights_reader, write_weights

MODEL = ModelConfig(layers=20, hidden=512, heads=8, kv_heads=8, ffn=1536, vocab=512)
"""20 layers of 13 MiB, in tensors of 1 to 6 MiB."""


def saved(folder: Path, model: ModelConfig) -> Path:
    """A checkpoint as the megatron engine lays it out: every parameter whole, under its key."""
    shapes = model.tensor_shapes()
    state: dict[str, torch.Tensor] = {}
    seen: set[str] = set()
    rules = list(outer_rules(model).items())
    for layer in range(model.layers):
        rules += [(f"decoder.layers.{layer}.{name}", rule) for name, rule in layer_rules(model, layer).items()]
    for key, rule in rules:
        if rule.canonical[0] in seen:
            continue
        seen.update(rule.canonical)
        (state[key],) = rule.split([value(name, shapes[name]) for name in rule.canonical], 1)
    dcp.save(state, checkpoint_id=str(folder), no_dist=True)
    return folder


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.full(shape, float(sum(map(ord, name)) % 97))


def peak_mib() -> float:
    """Largest resident memory of this process so far, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def export(folder: Path, target: Path) -> None:
    """Fails if many tensors were in memory at once."""
    target.mkdir()
    begun = peak_mib()
    write_weights(target, MODEL.tensor_shapes(), stored_weights(folder, MODEL), shard_gib=0.1)
    grown = peak_mib() - begun
    print(f"{grown:.0f} MiB more at the peak")
    assert grown < 80, f"{grown:.0f} MiB more at the peak for tensors of 6 MiB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's count of resident memory")
def test_a_checkpoint_is_never_in_memory_whole(tmp_path: Path) -> None:
    saver = multiprocessing.get_context("fork").Process(target=saved, args=(tmp_path / "checkpoint", MODEL))
    saver.start()
    saver.join()
    exporter = multiprocessing.get_context("fork").Process(
        target=export, args=(tmp_path / "checkpoint", tmp_path / "target")
    )
    exporter.start()
    exporter.join()
    assert exporter.exitcode == 0
    read = weights_reader(tmp_path / "target", MODEL.tensor_shapes())
    for name, shape in MODEL.tensor_shapes().items():
        assert torch.equal(read(name), value(name, shape)), name


def test_a_checkpoint_of_fewer_layers_is_refused(tmp_path: Path) -> None:
    small = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=64)
    folder = saved(tmp_path / "checkpoint", small)
    with pytest.raises(UserError, match=r"no tensor decoder\.layers\.2\."):
        list(stored_weights(folder, small.model_copy(update={"layers": 3})))
