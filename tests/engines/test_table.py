"""The engine that a recipe names is made, or a person is told what is in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import engine_programs
import pytest
import torch

from kit.errors import RunFailure, UserError
from recipes.data import IGNORED, Batch
from recipes.distributed.processes import Processes
from recipes.engines.table import ENGINES, build_engine

ROOT = Path(__file__).resolve().parents[2]
ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=1)

HIDING = """
import importlib.abc, json, sys

class Hider(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hider())
from kit.errors import UserError
from recipes.engines.table import engine_class
try:
    engine_class(sys.argv[1])
except UserError as error:
    print(json.dumps(error.parts()))
"""


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"reference"}))
def test_a_missing_package_is_named_with_what_to_do(engine: str) -> None:
    package = {"megatron": "megatron", "accelerate": "accelerate", "deepspeed": "deepspeed"}[engine]
    command = [sys.executable, "-W", "ignore", "-c", HIDING, engine, package]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    parts = json.loads(done.stdout)
    assert f"engine {engine} needs the Python package {package}, which is not installed" in parts["found"]
    assert "lock.txt" in parts["expected"]
    assert "make setup" in parts["action"]
    assert f" {engine}" not in parts["action"].partition("another engine:")[2]


def test_a_model_that_exists_goes_to_no_engine_that_makes_its_own() -> None:
    config, _ = engine_programs.configuration("reference", {})
    with pytest.raises(UserError, match="a Linear") as caught:
        build_engine(config, torch.nn.Linear(2, 2), ALONE, torch.float32)
    assert "engine=accelerate" in caught.value.action


@pytest.mark.parametrize("engine", ["reference", "accelerate"])
def test_a_batch_without_a_counted_label_stops_the_run(engine: str) -> None:
    made, _ = engine_programs.started_engine(ALONE, engine, {}, layers=1)
    tokens = engine_programs.batch_of(made, 1).tokens
    batch = Batch(1, tokens, 0 * tokens + IGNORED)
    with pytest.raises(RunFailure, match="no label"):
        made.train_step(batch, 1e-3)
    with pytest.raises(RunFailure, match="no label"):
        made.mean_loss([batch])
