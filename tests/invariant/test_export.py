"""What plain transformers loads is the model that was trained, however megatron-core has divided it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

LLAMA = {"rope_base": 5000.0}
GPT2 = {"family": "gpt2"}


@pytest.mark.parametrize(
    ("layout", "model"),
    [
        ({"tensor": 2}, LLAMA),
        ({"pipeline": 2}, LLAMA | {"tied": True}),
        ({"pipeline": 2, "interleave": 2}, LLAMA),
        ({"tensor": 2, "sequence": True}, GPT2),
        ({"pipeline": 2}, GPT2),
    ],
)
def test_exported_logits_equal_the_engines(tmp_path: Path, layout: dict[str, Any], model: dict[str, Any]) -> None:
    trained, exported = run_on_ranks(engine_programs.train_and_export, 2, layout, model, str(tmp_path))[0]
    assert np.abs(exported - trained).max() < 1e-5
