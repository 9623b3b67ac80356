"""A stage that trains on a blend of two parents: what it says of them, and that a stop changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import real_text
from rank_processes import run_on_ranks
from stage_run import write_run

from kit.config import load, parse, to_data
from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events
from kit.tokens.card import CARD_NAME, read_card, write_card
from kit.tokens.check import check_shards
from recipes.dataset import open_datasets
from recipes.distributed.processes import Processes
from recipes.pretrain.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two data_prep runs whose shards one tokenizer has made: the second holds the first's held-out part."""
    folder = tmp_path_factory.mktemp("parents")
    places = {name: folder / name for name in ("code", "notes")}
    card = real_text.write_dataset(places["code"] / "artifacts")
    shutil.copytree(places["code"], places["notes"])
    swapped = {"train": card.splits["validation"], "validation": card.splits["train"]}
    write_card(places["notes"] / "artifacts" / CARD_NAME, card.model_copy(update={"splits": swapped}))
    return places


def make_run(root: Path, parents: dict[str, Path], **data: Any) -> RunDirectory:
    config = load(PretrainConfig, ROOT / "recipes" / "pretrain" / "tiny.yaml", [f"budget.steps={STEPS}"])
    changed = to_data(config) | {"parents": dict.fromkeys(parents, "last:data_prep")}
    changed["data"] |= {"blend": {"code": 3, "notes": 1}} | data
    changed |= {"validation": {"every_steps": 4, "samples": 8}, "layout": {"data": 2}}
    config = parse(PretrainConfig, changed, "recipe.yaml")
    return write_run(root, config, parents)


def train(processes: Processes, path: str, stop_after: int) -> None:
    """Trains as the stage does; as if somebody asked it to stop in step `stop_after`."""
    from recipes.pretrain.source import find_source
    from recipes.stop import STOP, Stopped
    from recipes.training.language_model import LanguageModelTraining

    run = RunDirectory(Path(path))
    config = parse(PretrainConfig, run.config(), "config.yaml")
    datasets = open_datasets(run, config.data.blend)
    source = find_source(config, next(iter(datasets.values())))
    training = LanguageModelTraining(config, run, datasets, source, processes, export=False)
    step_of = training.engine.train_step

    def watched(batch: Any, rate: float) -> Any:
        STOP.requested = batch.step == stop_after
        return step_of(batch, rate)

    training.engine.train_step = watched  # type: ignore[method-assign]
    try:
        training.go()
    except Stopped:
        assert stop_after


def records(run: RunDirectory) -> list[dict[str, Any]]:
    keys = ("step", "loss", "loss_code", "loss_notes", "validation_loss", "validation_loss_code")
    return [{key: record.get(key) for key in keys} for record in read_metrics(run.metrics_path)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, parents: dict[str, Path]) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("runs"), parents, reset_attention=True)
    run_on_ranks(train, 2, str(run.path), 0)
    return run


def test_the_summary_says_what_was_seen_of_every_source(undisturbed: RunDirectory) -> None:
    told = json.loads((undisturbed.artifacts / "training.json").read_text())
    assert told["steps"] == STEPS
    assert list(told["sources"]) == ["code", "notes"]
    samples = [source["samples"] for source in told["sources"].values()]
    assert sum(samples) == STEPS * 8
    assert [source["weight"] for source in told["sources"].values()] == [0.75, 0.25]
    for source in told["sources"].values():
        assert source["epochs"] == source["samples"] / source["samples_per_epoch"]
        assert source["validation_loss_after"] < source["validation_loss_before"]
    mean = sum(source["weight"] * source["validation_loss_after"] for source in told["sources"].values())
    assert told["validation_loss_after"] == pytest.approx(mean)
    (event,) = (event for event in read_events(undisturbed) if event["event"] == "data")
    assert event["sources"]["code"]["epochs"] == told["sources"]["code"]["epochs"]


def test_every_step_has_the_losses_of_its_sources(undisturbed: RunDirectory) -> None:
    found = read_metrics(undisturbed.metrics_path)
    assert any("loss_notes" in record for record in found)
    assert all("loss_code" in record for record in found)
    (validated,) = (record for record in found if "validation_loss" in record)
    parts = 0.75 * validated["validation_loss_code"] + 0.25 * validated["validation_loss_notes"]
    assert validated["validation_loss"] == pytest.approx(parts)


def test_a_stopped_run_goes_on_with_the_same_samples(
    tmp_path: Path, parents: dict[str, Path], undisturbed: RunDirectory
) -> None:
    run = make_run(tmp_path, parents, reset_attention=True)
    run_on_ranks(train, 2, str(run.path), 3)
    assert len(records(run)) == 3
    run_on_ranks(train, 2, str(run.path), 0)
    assert records(run) == records(undisturbed)
    summaries = [json.loads((r.artifacts / "training.json").read_text()) for r in (run, undisturbed)]
    assert summaries[0]["sources"] == summaries[1]["sources"]


def test_sources_of_two_tokenizers_are_refused_by_their_names(tmp_path: Path, parents: dict[str, Path]) -> None:
    other = tmp_path / "other"
    card = real_text.write_dataset(other / "artifacts", vocab_size=640)
    run = make_run(tmp_path, {"code": parents["code"], "notes": other})
    with pytest.raises(UserError, match=r"`code`.*`notes`") as refused:
        open_datasets(run, {"code": 3, "notes": 1})
    mine = read_card(parents["code"] / "artifacts" / CARD_NAME).tokenizer.fingerprint
    assert mine in str(refused.value)
    assert card.tokenizer.fingerprint in str(refused.value)


def test_a_vocabulary_too_large_for_the_shards_is_refused(tmp_path: Path, parents: dict[str, Path]) -> None:
    artifacts = tmp_path / "artifacts"
    shutil.copytree(parents["code"] / "artifacts", artifacts)
    card = read_card(artifacts / CARD_NAME)
    tokenizer = card.tokenizer.model_copy(update={"vocab_size": 70_000})
    write_card(artifacts / CARD_NAME, card.model_copy(update={"tokenizer": tokenizer}))
    with pytest.raises(UserError, match="uint16, which ends at 65535, and the vocabulary has 70000 ids"):
        check_shards(artifacts, fast=True)
