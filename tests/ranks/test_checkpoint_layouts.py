"""One checkpoint for all layouts, interleaved or not, with the optimizer distributed or not; for no other model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
import torch
from rank_processes import run_on_ranks

from kit.errors import UserError
from recipes.checkpoint.writing import write_at_once
from recipes.distributed.processes import Processes

TIED = {"tied": True}
Curve = list[tuple[float, float]]


def optimizer(distributed: bool) -> dict[str, Any]:
    return {"optimizer": {"distributed": distributed}}


def save(processes: Processes, layout: dict[str, int], distributed: bool, folder: str) -> Curve:
    made, _ = engine_programs.started_engine(processes, "megatron", layout, recipe=optimizer(distributed), **TIED)
    engine_programs.steps_of(made, 1, 3)
    write_at_once(made.save_state(Path(folder)))
    return engine_programs.steps_of(made, 4, 6)


def load(processes: Processes, layout: dict[str, int], distributed: bool, folder: str) -> Curve:
    made, sized = engine_programs.started_engine(processes, "megatron", layout, recipe=optimizer(distributed), **TIED)
    made.load_weights(lambda name: torch.zeros(sized.tensor_shapes()[name]))
    made.load_state(Path(folder))
    return engine_programs.steps_of(made, 4, 6)


def keys(processes: Processes, folder: str) -> list[str]:
    from megatron.core import dist_checkpointing

    return sorted(dist_checkpointing.load_tensors_metadata(folder))


def load_as(processes: Processes, folder: str, model: dict[str, int]) -> dict[str, str]:
    made, _ = engine_programs.started_engine(processes, "megatron", {"pipeline": 2}, **TIED | model)
    try:
        made.load_state(Path(folder))
    except UserError as error:
        return error.parts()
    return {}


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Curve]:
    folder = str(tmp_path_factory.mktemp("interleaved"))
    return folder, run_on_ranks(save, 2, {"pipeline": 2, "interleave": 2}, True, folder)[0]


def test_interleaved_chunks_of_tied_weights_go_on_bit_by_bit(interleaved: tuple[str, Curve]) -> None:
    folder, curve = interleaved
    assert run_on_ranks(load, 2, {"pipeline": 2, "interleave": 2}, True, folder)[0] == curve


@pytest.mark.parametrize(("layout", "distributed"), [({}, False), ({"data": 2}, True)])
def test_any_layout_reads_interleaved_chunks(
    interleaved: tuple[str, Curve], layout: dict[str, int], distributed: bool
) -> None:
    folder, curve = interleaved
    went_on = run_on_ranks(load, 2 if layout else 1, layout, distributed, folder)[0]
    np.testing.assert_allclose(np.array(went_on)[:, 0], np.array(curve)[:, 0], atol=1e-5, rtol=0)


def test_every_layer_has_keys_of_its_own_and_fp32_weights_are_stored_once(interleaved: tuple[str, Curve]) -> None:
    found = run_on_ranks(keys, 1, interleaved[0])[0]
    weights = [key for key in found if not key.startswith("optimizer.")]
    assert [key for key in weights if key.startswith("decoder.layers.3.")]
    assert len([key for key in weights if key.startswith("decoder.layers.")]) % 4 == 0
    moments = [f"optimizer.state.{moment}.{key}" for moment in ("exp_avg", "exp_avg_sq") for key in weights]
    assert found == sorted(weights + moments)


@pytest.mark.parametrize(("model", "words"), [({"layers": 8}, "4 layers"), ({"hidden": 32}, "shape [256, 64]")])
def test_another_model_is_refused_in_words_on_every_rank(
    interleaved: tuple[str, Curve], model: dict[str, int], words: str
) -> None:
    for told in run_on_ranks(load_as, 2, interleaved[0], model):
        assert words in told["found"]
        assert "layout" in told["expected"]
