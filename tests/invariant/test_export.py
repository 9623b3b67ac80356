"""What plain transformers loads is the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
import torch
from rank_processes import run_on_ranks


@pytest.mark.parametrize(
    ("layout", "world_size", "tied"), [({"tensor": 2}, 2, False), ({"pipeline": 2}, 2, True), ({}, 1, False)]
)
def test_exported_logits_equal_the_engines(tmp_path: Path, layout: dict[str, Any], world_size: int, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    model = {"tied": tied, "rope_base": 5000.0}
    trained = run_on_ranks(engine_programs.export_directory, world_size, layout, model, str(tmp_path))[0]
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = exported(torch.from_numpy(engine_programs.stream().batch(0, 0, 4).tokens)).logits.numpy()
    assert np.abs(logits - trained).max() < 1e-5
