"""A tensor-parallel run of megatron-core that was cut goes on, also in another layout. All engines: tests/engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[float, float]]]:
    folder = tmp_path_factory.mktemp("checkpoint")
    curve = run_on_ranks(engine_programs.save_and_go_on, 2, {"tensor": 2}, str(folder))[0]
    assert any(Path(folder).iterdir())
    return str(folder), curve


def test_the_same_layout_goes_on_bit_by_bit(saved: tuple[str, Any]) -> None:
    folder, curve = saved
    assert run_on_ranks(engine_programs.load_and_go_on, 2, {"tensor": 2}, folder)[0] == curve


@pytest.mark.parametrize(("layout", "world_size"), [({}, 1), ({"pipeline": 2}, 2)])
def test_another_layout_goes_on_within_rounding(
    saved: tuple[str, Any], layout: dict[str, int], world_size: int
) -> None:
    folder, curve = saved
    went_on = run_on_ranks(engine_programs.load_and_go_on, world_size, layout, folder)[0]
    np.testing.assert_allclose(np.array(went_on)[:, 0], np.array(curve)[:, 0], atol=1e-5, rtol=0)
