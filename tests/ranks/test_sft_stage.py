"""The sft stage on real ranks: what it leaves behind, two ranks as one, stopped and resumed, LoRA, refused input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_model
import pytest
import torch
from rank_processes import run_on_ranks

from kit.config import digest, dump, load, to_data
from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import now, read_events
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from recipes.chat.generation import generate_answers, load_model
from recipes.chat.template import ChatTemplate
from recipes.distributed.processes import Processes
from recipes.instructions.read import read_instructions
from recipes.sft.config import SftConfig
from recipes.stop import STOP, Stopped

ROOT = chat_model.ROOT
ALONE = Processes(0, 1, torch.device("cpu"), 1)
STEPS = 12
SETS = (
    "layout.data=1",
    f"budget.steps={STEPS}",
    "schedule.warmup_steps=2",
    "checkpoint.every_steps=4",
    "validation.every_steps=6",
    "data.global_batch_samples=8",
    "data.micro_batch_samples=2",
    "data.sequence_length=72",
    "data.held_out_fraction=0.02",
    "answers.samples=5",
    "answers.new_tokens=8",
    "logging.peak_seconds=0.01",
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    chat_model.write_model(folder / "artifacts" / "model")
    return folder


def make_run(root: Path, parent: Path, *sets: str) -> RunDirectory:
    config = load(SftConfig, ROOT / "recipes" / "sft" / "tiny.yaml", [*SETS, *sets])
    run = RunDirectory.create(root, "sft", config.name)
    run.config_path.write_text(dump(config))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1).settle(config.layout.world_size, 0)))
    parents = {name: Parent(run_id="parent", path=str(parent), digest="sha256:0") for name in config.parents}
    facts: dict[str, Any] = {"stage": "sft", "name": config.name, "created": now(), "key": "sha256:0"}
    write_manifest(run, Manifest(run_id=run.id, parents=parents, config_digest=digest(to_data(config)), **facts))
    return run


def tune(processes: Processes, path: str, stop_at: int = 0) -> bool:
    """Runs the stage on these ranks; the last is asked to stop in a step. Returns whether it came to the end."""
    from kit.config import parse
    from recipes.data import Batch
    from recipes.sft.tuning import Tuning

    class Told(Tuning):
        def _feed(self, steps: range) -> Iterator[Batch]:
            for batch in super()._feed(steps):
                if batch.step == stop_at and processes.rank == processes.world_size - 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    STOP.listen()
    run = RunDirectory.open(Path(path))
    try:
        Told(parse(SftConfig, run.config(), path), run, processes).go()
    except Stopped:
        return False
    return True


def finish(root: Path, parent: Path, ranks: int, *sets: str) -> RunDirectory:
    run = make_run(root, parent, f"layout.data={ranks}", *sets)
    assert run_on_ranks(tune, ranks, str(run.path)) == [True] * ranks
    return run


def told(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.artifacts / "sft.json").read_text())


def losses(run: RunDirectory) -> list[float]:
    return [record["loss"] for record in read_metrics(run.metrics_path)]


def weights(run: RunDirectory) -> bytes:
    return (run.artifacts / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("one"), parent, 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("two"), parent, 2)


def test_a_run_leaves_what_the_next_stage_reads(one: RunDirectory, parent: Path) -> None:
    result = told(one)
    assert result["loss_after"] < result["loss_before"] - 1
    assert result["export_max_logit_difference"] < 1e-5
    assert result["parameters"] == result["trained_parameters"]
    assert result["pairs"] + result["held_out_pairs"] + result["dropped_too_long"] == 756
    assert len(result["answers"]) == 5
    assert result["reference_contained_before"] == 0.0
    assert "merge_max_logit_difference" not in result
    assert not (one.artifacts / "adapter").exists()
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        assert (one.artifacts / "model" / name).read_bytes() == (parent / "artifacts/model" / name).read_bytes()
    model, tokenizer = load_model(one.artifacts / "model")
    assert set(model.generation_config.eos_token_id) == {7, 2}
    conversations = {c.prompt_text: c for c in read_instructions([chat_model.DEMO])}
    asked = [conversations[row["prompt"]] for row in result["answers"]]
    after = generate_answers(model, tokenizer, [c.prompt for c in asked], new_tokens=8, temperature=0, seed=0)
    assert after == [row["after"] for row in result["answers"]]
    data = [{"role": message.role, "content": message.content} for message in asked[0].messages]
    ids = tokenizer.apply_chat_template(data, tokenize=True, return_dict=False)
    assert ids == ChatTemplate.of(tokenizer).encode(asked[0].messages)[0]


def test_records_count_real_tokens_and_validate(one: RunDirectory) -> None:
    records = read_metrics(one.metrics_path)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert len({record["tokens"] for record in records}) > 1
    assert all(8 * 20 < record["tokens"] < 8 * 72 for record in records)
    assert [record["step"] for record in records if "validation_loss" in record] == [6]


def test_two_ranks_are_as_one(one: RunDirectory, two: RunDirectory) -> None:
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    first, second = told(one), told(two)
    for key in ("loss_before", "loss_after"):
        assert second[key] == pytest.approx(first[key], abs=1e-5)
    assert second["answers"] == first["answers"]
    assert [r["tokens"] for r in read_metrics(two.metrics_path)] == [
        r["tokens"] for r in read_metrics(one.metrics_path)
    ]


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path: Path, parent: Path, two: RunDirectory) -> None:
    run = make_run(tmp_path, parent, "layout.data=2")
    assert run_on_ranks(tune, 2, str(run.path), 6) == [False, False]
    assert len(losses(run)) == 6
    assert not (run.artifacts / "sft.json").exists()
    assert run_on_ranks(tune, 2, str(run.path)) == [True, True]
    assert losses(run) == losses(two)
    assert weights(run) == weights(two)
    assert told(run) == {**told(two), "resumed_from": [6], "peak_flops_per_second": told(run)["peak_flops_per_second"]}


LORA = ("method=lora", "lora.rank=4", "lora.alpha=8", "lora.dropout=0.1", "optimizer.learning_rate=2e-2")


def test_lora_trains_updates_alone_and_merges_them_exactly(tmp_path: Path, parent: Path) -> None:
    import peft

    run = finish(tmp_path, parent, 1, *LORA)
    result = told(run)
    assert result["trained_parameters"] < result["parameters"] / 4
    assert result["loss_after"] < result["loss_before"] - 0.1
    assert 0 < result["merge_max_logit_difference"] < 1e-4
    bare, _ = load_model(parent / "artifacts" / "model")
    merged, _ = load_model(run.artifacts / "model")
    assert torch.equal(merged.model.embed_tokens.weight, bare.model.embed_tokens.weight)
    assert not torch.equal(merged.model.layers[0].mlp.up_proj.weight, bare.model.layers[0].mlp.up_proj.weight)
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(bare, run.artifacts / "adapter").eval()(tokens).logits
        assert (merged(tokens).logits - expected).abs().max() < 1e-4
    resumed = make_run(tmp_path / "resumed", parent, *LORA)
    assert run_on_ranks(tune, 1, str(resumed.path), 6) == [False]
    assert run_on_ranks(tune, 1, str(resumed.path)) == [True]
    assert losses(resumed) == losses(run)
    assert weights(resumed) == weights(run)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_of_another_family_gets_the_marks_that_it_lacks(tmp_path: Path, method: str) -> None:
    directory = chat_model.write_model_without_marks(tmp_path / "gpt2")
    sets = (f"model_path={directory}", f"method={method}", "data.sequence_length=96")
    with pytest.raises(UserError, match=r"a vocabulary without <\|system\|>"):
        tune(ALONE, str(make_run(tmp_path / "refused", tmp_path, *sets).path))
    run = finish(tmp_path / "runs", tmp_path, 1, *sets, "template.add_tokens=true")
    result = told(run)
    assert result["added_tokens"] == ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    assert result["loss_after"] < result["loss_before"]
    assert result["flops_convention"] == "megatron", "the sizes of a GPT-2 are known"
    assert result["export_max_logit_difference"] < 1e-4
    model, tokenizer = load_model(run.artifacts / "model")
    before, _ = load_model(directory)
    rows = before.config.vocab_size
    assert model.config.vocab_size == len(tokenizer) == rows + 4
    assert ChatTemplate.of(tokenizer).stop_id == rows + 3
    new = model.get_input_embeddings().weight[rows:]
    assert len({tuple(row.tolist()) for row in new}) == 4
    assert (torch.equal(model.transformer.wte.weight[:rows], before.transformer.wte.weight)) == (method == "lora")


REFUSED = {
    "data.sequence_length=97": "a context of 96",
    "data.sequence_length=40": "conversations have more than 40 tokens",
    "method=lora lora.target_modules=[nothing]": "lora.target_modules ['nothing']",
    "model_path=/nowhere/model": "no file at /nowhere/model/config.json",
    "layout.data=2": "layout data 2",
}


@pytest.mark.parametrize("sets", REFUSED)
def test_what_does_not_fit_is_refused_before_a_step(tmp_path: Path, parent: Path, sets: str) -> None:
    run = make_run(tmp_path, parent, *sets.split())
    with pytest.raises(UserError) as caught:
        tune(ALONE, str(run.path))
    assert REFUSED[sets] in caught.value.found
    assert caught.value.expected
    assert caught.value.action
    assert not read_metrics(run.metrics_path)


def start(run: RunDirectory) -> int:
    command = [sys.executable, "-m", "recipes", str(run.path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=240).returncode


def test_the_stage_as_it_is_started_leaves_out_what_is_too_long(tmp_path: Path, parent: Path) -> None:
    rows = chat_model.DEMO.read_text(encoding="utf-8").splitlines()[:60]
    long = {"instruction": "Tell me everything.", "input": "", "output": "word " * 100}
    (tmp_path / "data.jsonl").write_text("\n".join([*rows, json.dumps(long)]) + "\n", encoding="utf-8")
    run = make_run(tmp_path, parent, f"data.files=[{tmp_path / 'data.jsonl'}]", "budget.steps=2")
    assert start(run) == 0, (run.logs / "rank-00000.log").read_text()[-3000:]
    dropped = [event for event in read_events(run) if event["event"] == "conversations_dropped"]
    assert told(run)["dropped_too_long"] == dropped[0]["count"] >= 1
    assert read_events(run)[-1]["event"] == "finished"


def test_a_malformed_row_ends_the_stage_with_its_line(tmp_path: Path, parent: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    run = make_run(tmp_path, parent, f"data.files=[{tmp_path / 'bad.jsonl'}]")
    assert start(run) == 2
    failed = [event for event in read_events(run) if event["event"] == "failed"]
    assert [event["exit_code"] for event in failed] == [2]
    assert "bad.jsonl, line 2: `output` is missing" in failed[0]["found"]
