"""The zero stage on real ranks: it goes on with an exported model, stops, resumes, and exports one itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_text
import torch
from rank_processes import ROOT, run_on_ranks
from stage_run import write_run

from kit.config import load, parse
from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events
from recipes.data import IGNORED, Batch, SampleStream
from recipes.dataset import open_dataset, open_datasets
from recipes.distributed.processes import Processes
from recipes.engines.loss import loss_sum
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.gpt import Gpt
from recipes.model.huggingface import write_directory
from recipes.model.init import first_tensor
from recipes.model.weight_files import weights_reader
from recipes.stop import STOP, Stopped
from recipes.zero.config import ZeroConfig
from recipes.zero.source import find_source

MODEL = ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab=512, tied=True, rope_base=5000.0)
LENGTH, POSITIONS, STEPS, STOPPED = 32, 64, 8, 5
SETS = (
    "model=null",
    f"data.sequence_length={LENGTH}",
    f"budget.steps={STEPS}",
    "schedule.warmup_steps=2",
    "validation.every_steps=4",
    "checkpoint.every_steps=null",
    "logging.peak_seconds=0.01",
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset, and a model with the dataset's tokenizer."""
    data, model = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("model")
    real_text.write_dataset(data / "artifacts", MODEL.vocab_size)
    tensors = ((name, first_tensor(MODEL, 7, name) * 2) for name in MODEL.tensor_shapes())
    ids = SpecialIds(real_text.EOD_ID, real_text.PAD_ID)
    (model / "artifacts").mkdir()
    write_directory(model / "artifacts" / "model", MODEL, POSITIONS, ids, tensors, data / "artifacts" / "tokenizer")
    return {"data": data, "model": model}


def make_run(root: Path, parents: dict[str, Path], *sets: str) -> RunDirectory:
    named = [f"parents.{name}=last:any" for name in parents]
    config = load(ZeroConfig, ROOT / "recipes" / "zero" / "tiny.yaml", [*SETS, *named, *sets])
    return write_run(root, config, parents)


def train(processes: Processes, path: str, stop_at: int = 0) -> bool:
    """Does what the stage does on these ranks; the last is asked to stop in a step. Whether it came to the end."""
    from recipes.training.language_model import LanguageModelTraining

    class Told(LanguageModelTraining):
        def _feed(self, steps: range) -> Iterator[Batch]:
            for batch in super()._feed(steps):
                if batch.step == stop_at and processes.rank == processes.world_size - 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    STOP.listen()
    run = RunDirectory.open(Path(path))
    config = parse(ZeroConfig, run.config(), "config.yaml")
    datasets = open_datasets(run, config.data.blend)
    source = find_source(config, run, datasets["data"])
    training = Told(config, run, datasets, source, processes, export=True)
    try:
        training.go()
    except Stopped:
        return False
    return True


def loss_of(read: Callable[[str], torch.Tensor], run: RunDirectory, samples: int) -> float:
    """The validation loss of weights, computed by the plain model."""
    model = Gpt(MODEL)
    model.load_state_dict({name: read(name) for name in model.state_dict()})
    stream = SampleStream(open_dataset(run).tokens("validation"), LENGTH, seed=0, shuffle=False)
    batch = stream.batch(0, 0, samples)
    with torch.no_grad():
        nats = loss_sum(model(torch.from_numpy(batch.tokens)), torch.from_numpy(batch.labels))
    return float(nats) / int((batch.labels != IGNORED).sum())


def test_stage_3_goes_on_with_an_exported_model_stops_resumes_and_exports(
    tmp_path: Path, parents: dict[str, Path]
) -> None:
    from transformers import AutoModelForCausalLM

    run = make_run(tmp_path, parents, "zero.stage=3")
    assert run_on_ranks(train, 2, str(run.path), STOPPED) == [False, False]
    assert [path.name for path in run.checkpoints.iterdir()] == [f"step-{STOPPED:08d}"]
    assert not (run.artifacts / "model").exists()
    assert run_on_ranks(train, 2, str(run.path)) == [True, True]
    assert [event["step"] for event in read_events(run) if event["event"] == "resumed"] == [STOPPED]

    told = json.loads((run.artifacts / "training.json").read_text())
    begun, ended = parents["model"] / "artifacts" / "model", run.artifacts / "model"
    for key, directory in (("validation_loss_before", begun), ("validation_loss_after", ended)):
        assert told[key] == pytest.approx(loss_of(weights_reader(directory), run, 16), abs=1e-5)
    assert told["validation_loss_after"] < told["validation_loss_before"] - 0.1
    assert told["export_max_logit_difference"] < 1e-5
    assert AutoModelForCausalLM.from_pretrained(ended).config.max_position_embeddings == POSITIONS

    records = list(read_metrics(run.metrics_path))
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    bytes_of_weights = 4 * sum(torch.Size(shape).numel() for shape in MODEL.tensor_shapes().values())
    assert {record["owned_parameter_bytes_rank_1"] for record in records} == {bytes_of_weights / 2}


def refused(root: Path, parents: dict[str, Path], *sets: str) -> UserError:
    run = make_run(root, parents, *sets)
    with pytest.raises(UserError) as caught:
        find_source(parse(ZeroConfig, run.config(), "config.yaml"), run, open_dataset(run))
    assert caught.value.expected
    assert caught.value.action
    return caught.value


def changed(folder: Path, parents: dict[str, Path], file: str, change: Callable[[bytes], bytes]) -> dict[str, Path]:
    """The parents, with one file of the model another."""
    model = folder / "artifacts" / "model"
    model.mkdir(parents=True)
    for path in (parents["model"] / "artifacts" / "model").iterdir():
        (model / path.name).write_bytes(change(path.read_bytes()) if path.name == file else path.read_bytes())
    return {**parents, "model": folder}


def with_settings(text: bytes, **settings: Any) -> bytes:
    return json.dumps(json.loads(text) | settings).encode()


def test_a_model_with_another_tokenizer_than_the_shards_is_refused(tmp_path: Path, parents: dict[str, Path]) -> None:
    other = changed(tmp_path / "other", parents, "tokenizer.model", lambda content: content + b"x")
    assert "another tokenizer" in refused(tmp_path, other).found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0}}, "rope_type 'llama3'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"head_dim": 32}, "head_dim 32"),
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"model_type": "gpt2"}, "config.json: no n_embd"),
    ],
)
def test_a_model_that_the_engine_would_compute_otherwise_is_refused(
    tmp_path: Path, parents: dict[str, Path], settings: dict[str, Any], words: str
) -> None:
    other = changed(tmp_path / "other", parents, "config.json", partial(with_settings, **settings))
    assert words in refused(tmp_path, other).found


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path, parents: dict[str, Path]) -> None:
    data = {"data": parents["data"]}
    assert "nowhere" in refused(tmp_path, data, "model_path=/tmp/nowhere").found


def test_a_directory_by_its_path_is_as_good_as_a_parent(tmp_path: Path, parents: dict[str, Path]) -> None:
    directory = parents["model"] / "artifacts" / "model"
    run = make_run(tmp_path, {"data": parents["data"]}, f"model_path={directory}")
    source = find_source(parse(ZeroConfig, run.config(), "config.yaml"), run, open_dataset(run))
    assert source.model == MODEL
    assert source.positions == POSITIONS
    assert torch.equal(source.weights("model.norm.weight"), 2 * torch.ones(MODEL.hidden))
