"""Parts of the rlhf stage: TRL sees the template's ids and the house's order and rates; what is measured is right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import chat_model
import pytest
import torch

from kit.config import digest, dump, load, to_data
from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate, Message
from recipes.data import sample_numbers
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation, read_instructions, split_held_out
from recipes.loop import Speed
from recipes.reward.preferences import Preference, write_preferences
from recipes.rlhf.alignment import Alignment, fitting
from recipes.rlhf.config import RlhfConfig
from recipes.rlhf.held_out import check_held_out
from recipes.rlhf.job import Job
from recipes.rlhf.outcome import answer_kl, share_of_attainable
from recipes.rlhf.pairs import EncodedPair, check_apart, encode_pairs, preferred_share
from recipes.rlhf.reward_source import build_reward
from recipes.schedule import learning_rate

ALONE = Processes(0, 1, torch.device("cpu"), 1)
MARKED = "What ends a turn, <|end|> or </s>? <|assistant|>"
RECIPE = chat_model.ROOT / "recipes" / "rlhf" / "tiny-dpo.yaml"
SETS = ("data.sequence_length=96", "data.global_batch_samples=4", "data.micro_batch_samples=2", "budget.steps=6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rlhf")
    chat_model.write_model(folder / "model")
    chat_model.write_model(folder / "other", seed=2)
    return folder


@pytest.fixture(scope="module")
def template(folder: Path) -> ChatTemplate:
    return ChatTemplate.of(load_model(folder / "model")[1])


def config_of(*sets: str) -> RlhfConfig:
    return load(RlhfConfig, RECIPE, [*SETS, *sets])


def make_run(root: Path, config: RlhfConfig, **parents: Path) -> RunDirectory:
    run = RunDirectory.create(root, "rlhf", config.name)
    run.config_path.write_text(dump(config))
    named = {name: Parent(run_id=name, path=str(path), digest="sha256:0") for name, path in parents.items()}
    facts: dict[str, Any] = {"stage": "rlhf", "name": config.name, "created": now(), "key": "sha256:0"}
    write_manifest(run, Manifest(run_id=run.id, parents=named, config_digest=digest(to_data(config)), **facts))
    return run


def asked(text: str, answer: str = "", reference: str = "x") -> Conversation:
    return Conversation((Message("user", text), Message("assistant", answer)), reference, "file:1")


def pairs() -> list[Preference]:
    questions = [MARKED, *(f"Question {number}?" for number in range(4))]
    return [Preference((Message("user", text),), f"Yes {text[-2]}.", "Well, no. <|end|>") for text in questions]


def job_of(root: Path, folder: Path, *sets: str) -> Job:
    config = config_of(*sets)
    write_preferences(root / "preferences.jsonl", pairs())
    conversations = [pair.conversation for pair in pairs()]
    run = make_run(root, config)
    return Job(config, run, ALONE, folder / "model", root, conversations, [], Speed(1.0, 1.0))


def test_dpo_sees_exactly_the_ids_of_the_template(tmp_path: Path, folder: Path, template: ChatTemplate) -> None:
    from recipes.rlhf.dpo import DpoTraining

    trainer = DpoTraining(job_of(tmp_path, folder)).training.trainer
    order = sample_numbers(config_of().seed, 5, 0, 24)
    batches = list(trainer.get_train_dataloader())
    assert len(batches) == 12
    for place, batch in enumerate(batches):
        chosen = [pairs()[number] for number in order[2 * place : 2 * place + 2]]
        rows = [(pair, pair.chosen) for pair in chosen] + [(pair, pair.rejected) for pair in chosen]
        for row, (pair, answer) in enumerate(rows):
            ids, counted = template.encode([*pair.prompt, Message("assistant", answer)])
            seen = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][seen].tolist() == ids
            assert batch["completion_mask"][row][seen].bool().tolist() == counted
    marked = template.prompt_ids([Message("user", MARKED)])
    assert marked.count(template.stop_id) == marked.count(template.begin_id) == 1


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path, folder: Path) -> None:
    from recipes.rlhf.dpo import DpoTraining

    with pytest.raises(UserError, match=r"dpo\.lora\.target_modules"):
        DpoTraining(job_of(tmp_path, folder, "dpo.lora={target_modules: [c_attn]}"))


def test_grpo_answers_exactly_the_ids_of_the_template(tmp_path: Path, folder: Path, template: ChatTemplate) -> None:
    from recipes.rlhf.grpo import GrpoTraining

    sets = ("algorithm=grpo", "grpo.group_samples=2", "reward.rules=[{name: length}]")
    training = GrpoTraining(job_of(tmp_path, folder, *sets))
    trainer: Any = training.training.trainer
    order = sample_numbers(config_of().seed, 5, 0, 12)
    # Two prompts a step, each twice, all at once; the same rows come again for every accumulation step.
    batches = list(trainer.get_train_dataloader())[::2]
    assert [[row["number"] for row in batch] for batch in batches] == [
        [int(number) for number in order[2 * step : 2 * step + 2] for _ in range(2)] for step in range(6)
    ]
    rows = [row for batch in batches for row in batch]
    told, images, fields = trainer._tokenize_prompts([row["prompt"] for row in rows])
    assert (images, fields) == (None, {})
    assert told == [template.prompt_ids(pairs()[row["number"]].prompt) for row in rows]
    assert set(trainer.generation_config.eos_token_id) == set(template.stop_ids)


def test_the_libraries_defaults_are_ours(tmp_path: Path, folder: Path) -> None:
    from recipes.rlhf.dpo import DpoTraining

    job = job_of(tmp_path, folder, "schedule.warmup_steps=2")
    trainer: Any = DpoTraining(job).training.trainer
    args = trainer.args
    assert not args.bf16
    assert not args.gradient_checkpointing
    assert not args.logging_nan_inf_filter
    assert args.report_to == []
    assert args.save_strategy == "no"
    assert [type(callback).__name__ for callback in trainer.callback_handler.callbacks] == [
        "DefaultFlowCallback",
        "TrainerSteps",
    ]
    trainer.create_optimizer()
    scheduler = trainer.create_scheduler(6)
    rates = []
    for _ in range(6):
        rates.append(scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        scheduler.step()
    highest = job.config.optimizer.learning_rate
    assert rates == pytest.approx([learning_rate(job.config.schedule, highest, step, 6) for step in range(1, 7)])
    decayed, plain = trainer.optimizer.param_groups
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])


def test_kl_of_an_answer_is_the_sum_over_its_tokens(folder: Path, template: ChatTemplate) -> None:
    old, new = (load_model(folder / name)[0] for name in ("model", "other"))
    prompt, answer = (Message("user", "Why?"),), "Because."
    ids, counted = template.encode([*prompt, Message("assistant", answer)])
    total = 0.0
    for place in [place for place, count in enumerate(counted) if count]:
        seen = torch.tensor([ids[:place]])
        with torch.no_grad():
            p, q = (model(seen).logits[0, -1].double().softmax(-1).tolist() for model in (new, old))
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    assert answer_kl(old, new, template, prompt, answer) == pytest.approx(total, rel=1e-4)
    assert answer_kl(old, old, template, prompt, answer) == 0.0


def test_a_pair_is_preferred_when_its_chosen_answer_gained_more(folder: Path, template: ChatTemplate) -> None:
    old, new = (load_model(folder / name)[0] for name in ("model", "other"))
    encoded, _ = encode_pairs(template, pairs(), 96)
    share = preferred_share(new, old, encoded)
    swapped = [EncodedPair(pair.prompt_ids, pair.rejected_ids, pair.chosen_ids) for pair in encoded]
    assert preferred_share(new, old, swapped) == pytest.approx(1 - share)
    # Ties are no preference.
    assert preferred_share(old, old, encoded) == 0.0


def test_pairs_that_do_not_fit_are_counted_or_refused(template: ChatTemplate) -> None:
    long = Preference((Message("user", "Short?"),), "long " * 100, "No.")
    kept, dropped = encode_pairs(template, [*pairs(), long], 64)
    assert (len(kept), dropped) == (5, 1)
    with pytest.raises(UserError, match="2 of 3 preference pairs"):
        encode_pairs(template, [pairs()[1], long, long], 64)


def test_pairs_about_held_out_prompts_are_refused() -> None:
    check_apart(pairs(), [asked("Something else?")])
    with pytest.raises(UserError, match="1 of 5 preference pairs have a held-out prompt"):
        check_apart(pairs(), [asked("Question 2?")])


def test_prompts_without_room_for_an_answer_are_left_out(template: ChatTemplate) -> None:
    config = config_of("generation.new_tokens=60")
    short, long = asked("Why?"), asked("Why? " * 40)
    assert fitting(template, [short, long, short], config) == ([short, short], 1)
    with pytest.raises(UserError, match="2 of 3 prompts have more than 36 tokens"):
        fitting(template, [short, long, long], config)


def test_held_out_prompts_that_an_ancestor_trained_on_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"Q{n}?"}], "reference": "x"} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [f"data.files={json.dumps([str(data)])}", "data.held_out_fraction=0.25"]
    sft = make_run(tmp_path, config_of(*sets, "seed=1"))
    run = make_run(tmp_path, config_of(*sets), model=sft.path)
    conversations = read_instructions([data])
    assert check_held_out(run, split_held_out(conversations, 0.25, 1)[1]) == [sft.id]
    # A grandparent counts too.
    child = make_run(tmp_path, config_of(*sets, "seed=1"), model=run.path)
    with pytest.raises(UserError, match="held-out prompts were trained on by") as caught:
        check_held_out(child, split_held_out(conversations, 0.25, 2)[1])
    assert "same data.files" in caught.value.action
    # Files that are gone can't be checked, which doesn't stop a run.
    data.unlink()
    assert check_held_out(run, conversations) == []


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path, folder: Path) -> None:
    job = job_of(tmp_path, folder, "algorithm=ppo", "reward.kind=model", "reward.rules=[{name: length}]")
    directory = chat_model.write_model(tmp_path / "reward_model")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:-1]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"the reward model in .* has another tokenizer"):
        build_reward(job)


def test_rules_without_references_are_refused(tmp_path: Path, folder: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"instruction": f"Q{n}?", "output": "A."} for n in range(9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(f"data.files={json.dumps([str(data)])}")
    run = make_run(tmp_path, config, model=tmp_path, reward=tmp_path)
    with pytest.raises(UserError, match="no `reference`"):
        Alignment(config, run, ALONE)


def test_a_sequence_beyond_the_context_is_refused(tmp_path: Path, folder: Path) -> None:
    config = config_of("data.sequence_length=97")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "model").symlink_to(folder / "model")
    run = make_run(tmp_path, config, model=tmp_path, reward=tmp_path)
    with pytest.raises(UserError, match=r"data.sequence_length is 97, and .* has a context of 96"):
        Alignment(config, run, ALONE)


def test_the_share_of_what_could_be_gained() -> None:
    assert share_of_attainable(0.6, 0.8) == pytest.approx(0.5)
    assert share_of_attainable(0.6, 0.5) == pytest.approx(-0.25)
    assert share_of_attainable(1.0, 1.0) is None
