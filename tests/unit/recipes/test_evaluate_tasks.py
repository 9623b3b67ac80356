"""Tasks of lm-evaluation-harness: our figures are its own, and log-likelihoods are what a count by hand gives."""

from __future__ import annotations

import json
import lzma
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import chat_model
import pytest
import torch

from kit.config import parse
from kit.errors import UserError
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate, Message
from recipes.evaluate.config import TasksConfig
from recipes.evaluate.harness import give_template, open_tasks
from recipes.evaluate.tasks import make_tasks

FACTS = Path(make_tasks.__file__).parent
SHARED = chat_model.ROOT.parent / "shared" / "data" / "eval"
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
NAMES = ("arc_easy", "openbook_qa", "piqa")
QUESTIONS = 12


@pytest.fixture(scope="module", autouse=True)
def offline() -> None:
    """As `python -m recipes` sets it."""
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model.write_model(tmp_path_factory.mktemp("models") / "model", context=192)


@pytest.fixture(scope="module")
def loaded(directory: Path) -> tuple[Any, Any]:
    return load_model(directory)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of real benchmarks as local tasks."""
    if not SHARED.is_dir():
        pytest.skip(f"no benchmark questions in {SHARED}")
    folder = tmp_path_factory.mktemp("tasks")
    for name in NAMES:
        with lzma.open(SHARED / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
            lines = [line for _, line in zip(range(QUESTIONS), file, strict=False)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    return folder


def config(*folders: Path, **fields: Any) -> TasksConfig:
    return parse(TasksConfig, {"folders": [str(folder) for folder in folders], **fields}, "x.yaml")


def measure(loaded: tuple[Any, Any], wanted: TasksConfig) -> dict[str, Any]:
    with open_tasks(wanted) as tasks:
        return tasks.measure(*loaded, batch_samples=4)


def by_hand(directory: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a user of lm-eval writes, the model and tasks named by their paths."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(folder)
    model = HFLM(str(directory), device="cpu", dtype="float32", batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results: dict[str, Any] = simple_evaluate(model, tasks=list(NAMES), task_manager=manager)
    return results


def log_likelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    before, whole = (tokenizer.encode(text, add_special_tokens=False) for text in (context, context + continuation))
    with torch.no_grad():
        logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(logs[place - 1, whole[place]]) for place in range(len(before), len(whole)))


def test_figures_are_those_of_lm_eval_and_of_a_count_by_hand(
    directory: Path, loaded: tuple[Any, Any], slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = measure(loaded, config(slices))
    theirs = by_hand(directory, slices, monkeypatch)
    assert set(ours) == set(NAMES)
    for name in NAMES:
        found = theirs["results"][name]
        assert ours[name]["samples"] == QUESTIONS
        assert ours[name]["metric"] == "acc"
        for metric in ("acc", "acc_norm"):
            assert ours[name]["metrics"][metric]["value"] == found[f"{metric},none"]
            assert ours[name]["metrics"][metric]["stderr"] == found[f"{metric}_stderr,none"]
        right = 0
        for sample in theirs["samples"][name][:5]:
            texts = [f" {choice}" for choice in sample["doc"]["choices"]]
            expected = [log_likelihood(*loaded, sample["doc"]["query"].rstrip(), text) for text in texts]
            got = [response[0] for response in sample["filtered_resps"]]
            if not sample["doc"]["query"].endswith("\n"):  # lm-eval moves a last line end into the continuation
                assert got == pytest.approx(expected, abs=1e-3)
            right += got.index(max(got)) == sample["doc"]["gold"]
        assert right == sum(sample["acc"] for sample in theirs["samples"][name][:5])
    assert ours["piqa"]["chance"] == 0.5
    assert ours["arc_easy"]["chance"] == pytest.approx(0.25, abs=0.03)


def test_names_limit_and_a_second_model(loaded: tuple[Any, Any], slices: Path) -> None:
    with open_tasks(config(slices, names=["piqa"], limit=5, few_shot=1)) as tasks:
        first, second = (tasks.measure(*loaded, batch_samples=batch)["piqa"] for batch in (4, 2))
    assert first == second
    assert first["samples"] == 5


def test_the_facts_come_from_their_script_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_tasks", "--out", str(tmp_path / "facts.jsonl")])
    make_tasks.main()
    assert (tmp_path / "facts.jsonl").read_bytes() == (FACTS / "facts.jsonl").read_bytes()


def test_facts_are_asked_in_new_words_with_other_facts_as_wrong_choices() -> None:
    rows = [json.loads(line) for line in (FACTS / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    sample = [json.loads(line) for line in make_tasks.SAMPLE.read_text(encoding="utf-8").splitlines()]
    asked = {row["messages"][0]["content"] for row in sample}
    assert not asked & {row["question"] for row in rows}
    assert len(rows) == len({(row["topic"], row["fact"]) for row in sample})
    values = {kind: set(found.values()) for kind, found in make_tasks.facts().items()}
    for row in rows:
        assert len(set(row["choices"])) == 4
        endings = [
            [value for value in values[row["kind"]] if choice.endswith(f" {value}.")] for choice in row["choices"]
        ]
        assert all(endings), row
    places = Counter(row["gold"] for row in rows)
    assert min(places[place] for place in range(4)) > len(rows) / 8, "the right choice has a favourite place"


def test_the_chat_format_asks_as_a_user_does(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    template = ChatTemplate.of(tokenizer)
    with open_tasks(config(FACTS, limit=3, chat_format=True)) as tasks:
        found = tasks.measure(model, tokenizer, batch_samples=4)["facts"]
        requests = [request for request in tasks.loaded["facts"].instances if request.doc_id == 0]
    assert found["samples"] == 3
    assert found["chance"] == 0.25
    for request in requests:
        context, choice = request.args
        prompt = template.prompt_ids([Message("user", request.doc["question"])])
        assert tokenizer.encode(context, add_special_tokens=False) == prompt
        whole = [*prompt, *tokenizer.encode(choice, add_special_tokens=False)]
        assert tokenizer.encode(context + choice, add_special_tokens=False) == whole
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        expected = sum(float(logs[place - 1, whole[place]]) for place in range(len(prompt), len(whole)))
        assert request.resps[-1][0] == pytest.approx(expected, abs=1e-3)


def test_a_tokenizer_without_the_marks_has_no_chat_format(tmp_path: Path) -> None:
    _, tokenizer = load_model(chat_model.write_model_without_marks(tmp_path / "gpt"))
    with pytest.raises(UserError, match="a vocabulary without"):
        give_template(tokenizer)


def test_a_chat_template_of_its_own_is_kept(loaded: tuple[Any, Any]) -> None:
    class Tokenizer:
        chat_template = "{{ messages[0].content }}"

    tokenizer = Tokenizer()
    give_template(tokenizer)
    assert tokenizer.chat_template == "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("files", "names", "words"),
    [
        (None, [], "no folder"),
        ({}, [], "no YAML file"),
        ({"a.yaml": "task: [unclosed"}, [], r"a\.yaml: .*expected"),
        ({"a.yaml": "- a list"}, [], "Expected YAML dict"),
        ({"a.yaml": "description: no task here"}, [], "no task in"),
        ({"a.yaml": TASK.format(name="other")}, ["piqa"], "no task piqa in"),
        ({"a.yaml": TASK.format(name="piqa")}, [], r"task piqa .* does not load: .*piqa\.jsonl"),
        ({"a.yaml": TASK.format(name="piqa"), "piqa.jsonl": '{"query": 1'}, [], "task piqa .* does not load"),
        ({"a.yaml": TASK.format(name="piqa").replace("acc,", "acck,"), "piqa.jsonl": "{}"}, [], "does not load"),
        ({"a.yaml": "task: piqa\ndataset_path: ybisk/piqa\ntest_split: test"}, [], "does not load"),
    ],
)
def test_a_bad_task_folder_is_refused_in_words(
    tmp_path: Path, files: dict[str, str] | None, names: list[str], words: str
) -> None:
    folder = tmp_path / "tasks"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
    with pytest.raises(UserError, match=words):
        with open_tasks(config(folder, names=names)):
            pass
