"""The export of a run: which checkpoint, into which files, and what is refused; nothing half-written stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_text
import torch
import transformers

from kit.config import digest, dump, parse, to_data
from kit.errors import RunFailure, UserError
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from recipes.checkpoint.manifest import CheckpointManifest, digest_file, file_names, write_complete
from recipes.distributed.processes import leave
from recipes.export.__main__ import main
from recipes.export.source import find_exported
from recipes.export.write import Form, write_exported
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.gpt import Gpt
from recipes.model.huggingface import write_directory
from recipes.model.init import first_tensor
from recipes.model.weight_files import INDEX, weights_reader
from recipes.pretrain.config import PretrainConfig

MODEL = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=512)
RECIPE: dict[str, Any] = {
    "name": "test",
    "engine": "reference",
    "model": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64},
    "data": {"sequence_length": 32, "global_batch_samples": 4},
    "optimizer": {"learning_rate": 1e-3},
    "budget": {"steps": 20},
}
FP32 = Form("fp32", 4.0)


def weight(step: int, name: str) -> torch.Tensor:
    return first_tensor(MODEL, step, name) * 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    real_text.write_dataset(folder / "artifacts")
    return folder


@pytest.fixture
def run(tmp_path: Path, data: Path) -> RunDirectory:
    """A run of the reference engine with checkpoints of the steps 10 and 20."""
    config = parse(PretrainConfig, RECIPE, "test")
    run = RunDirectory.create(tmp_path / "runs", "pretrain", config.name)
    run.config_path.write_text(dump(config))
    of = {"data": Parent(run_id="data", path=str(data), digest="sha256:0")}
    facts: dict[str, Any] = {"stage": "pretrain", "name": config.name, "created": now(), "key": "sha256:0"}
    write_manifest(run, Manifest(run_id=run.id, parents=of, config_digest=digest(to_data(config)), **facts))
    for step in (10, 20):
        checkpoint(run, step)
    return run


def checkpoint(run: RunDirectory, step: int) -> None:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir()
    state = {name: weight(step, name) for name in MODEL.tensor_shapes()}
    torch.save({"model": state, "optimizer": {}}, folder / "state.pt")
    manifest = CheckpointManifest(
        step=step,
        samples_seen=4 * step,
        engine="reference",
        layout={},
        config_digest="",
        files=[digest_file(folder, name) for name in file_names(folder)],
    )
    write_complete(folder, manifest)


def finish(run: RunDirectory, data: Path) -> None:
    tensors = ((name, weight(99, name)) for name in MODEL.tensor_shapes())
    ids = SpecialIds(real_text.EOD_ID, real_text.PAD_ID)
    write_directory(run.artifacts / "model", MODEL, 64, ids, tensors, data / "artifacts" / "tokenizer")


def holds(directory: Path, step: int, dtype: torch.dtype = torch.float32) -> bool:
    read = weights_reader(directory, MODEL.tensor_shapes())
    return all(torch.equal(read(name), weight(step, name).to(dtype)) for name in MODEL.tensor_shapes())


def test_the_newest_checkpoint_becomes_a_directory_that_transformers_reads(tmp_path: Path, run: RunDirectory) -> None:
    from transformers import AutoModelForCausalLM

    written = write_exported(find_exported(run, None), run, tmp_path / "to", Form("fp32", 30_000 / 2**30))
    assert (written["step"], written["source"]) == (20, "checkpoints/step-00000020")
    assert len(written["files"]) > 3 and INDEX in written["files"]
    assert holds(tmp_path / "to", 20)
    assert (tmp_path / "to" / "tokenizer.model").is_file()
    mark = json.loads((tmp_path / "to" / "export.json").read_text())
    assert (mark["run"], mark["step"], mark["dtype"]) == (run.id, 20, "fp32")
    tokens = torch.arange(32)[None]
    reference = Gpt(MODEL)
    reference.load_state_dict({name: weight(20, name) for name in MODEL.tensor_shapes()})
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "to", dtype=torch.float32).eval()(tokens).logits
        assert (logits - reference(tokens)).abs().max() < 1e-5
        assert logits.abs().max() > 0.1


def test_a_finished_model_goes_before_checkpoints_and_a_step_before_that(
    tmp_path: Path, run: RunDirectory, data: Path
) -> None:
    finish(run, data)
    write_exported(find_exported(run, None), run, tmp_path / "finished", Form("bf16", 4.0))
    assert holds(tmp_path / "finished", 99, torch.bfloat16)
    settings = json.loads((tmp_path / "finished" / "config.json").read_text())
    assert (settings["dtype"], settings["max_position_embeddings"]) == ("bfloat16", 64)
    write_exported(find_exported(run, 10), run, tmp_path / "ten", FP32)
    assert holds(tmp_path / "ten", 10)


def damage(run: RunDirectory, step: int) -> None:
    path = run.checkpoints / f"step-{step:08d}" / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_left_out_or_refused_by_its_step(run: RunDirectory) -> None:
    damage(run, 20)
    exported = find_exported(run, None)
    assert exported.step == 10
    assert "step-00000020: state.pt differs" in exported.left_out[0]
    with pytest.raises(UserError, match=r"state\.pt differs"):
        find_exported(run, 20)
    damage(run, 10)
    with pytest.raises(UserError, match=r"step-00000020: .*; step-00000010: "):
        find_exported(run, None)


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(run: RunDirectory) -> None:
    with pytest.raises(UserError, match="no checkpoint of step 15; there are: steps 10, 20"):
        find_exported(run, 15)


def test_a_checkpoint_of_another_model_is_refused_and_leaves_nothing(tmp_path: Path, run: RunDirectory) -> None:
    run.config_path.write_text(run.config_path.read_text().replace("ffn: 64", "ffn: 128"))
    with pytest.raises(UserError, match=r"gate_proj\.weight has the shape \[64, 32\]"):
        write_exported(find_exported(run, None), run, tmp_path / "to", FP32)
    assert not list(tmp_path.glob("to*"))


def test_a_full_disk_leaves_nothing(tmp_path: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*_: Any) -> Iterator[tuple[str, torch.Tensor]]:
        yield next(iter(MODEL.tensor_shapes())), weight(1, next(iter(MODEL.tensor_shapes())))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recipes.export.source.stored_weights", stream)
    with pytest.raises(RunFailure, match="no space left"):
        write_exported(find_exported(run, 10), run, tmp_path / "to", FP32)
    assert not list(tmp_path.glob("to*"))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().err


def test_what_is_there_is_replaced_only_if_it_is_an_export_and_that_is_wanted(
    tmp_path: Path, run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    export = partial(told, capsys, str(run.path), "--to")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for words in ((), ("--force",)):
        code, said = export(str(mine), *words)
        assert code == 2 and f"{mine} exists" in said
    assert (mine / "thesis.txt").read_text() == "years of work"
    target = tmp_path / "to"
    assert export(str(target), "--step", "10") == (0, "")
    code, said = export(str(target))
    assert code == 2 and "add --force" in said
    assert holds(target, 10)
    assert export(str(target), "--force") == (0, "")
    assert holds(target, 20)


def test_logits_are_compared_on_held_out_text(
    tmp_path: Path, run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # `python -m recipes.export` has it from recipes.quiet, which another test's import of transformers can precede.
    transformers.utils.logging.disable_progress_bar()
    export = partial(told, capsys, str(run.path), "--verify", "--to")
    try:
        for dtype in ("fp32", "bf16"):
            assert export(str(tmp_path / dtype), "--dtype", dtype) == (0, "")
            leave()
        # As if the first key matrix had been written to another place.
        monkeypatch.setattr(
            "recipes.export.write.write_directory",
            lambda directory, model, positions, ids, tensors, *rest, **more: write_directory(
                directory,
                model,
                positions,
                ids,
                ((name, tensor.flip(0) if "0.self_attn.k_proj" in name else tensor) for name, tensor in tensors),
                *rest,
                **more,
            ),
        )
        code, said = export(str(tmp_path / "wrong"))
        assert code == 1 and "logits differ" in said
    finally:
        leave()


def test_a_stage_that_writes_its_model_itself_is_refused(
    tmp_path: Path, run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    run.config_path.write_text("stage: sft\nname: test\n")
    code, said = told(capsys, str(run.path), "--to", str(tmp_path / "to"))
    assert code == 2 and "stage sft" in said
