"""What plain transformers loads is the model that was trained, however megatron-core has divided it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks


@pytest.mark.parametrize(("layout", "tied"), [({"tensor": 2}, False), ({"pipeline": 2}, True)])
def test_exported_logits_equal_the_engines(tmp_path: Path, layout: dict[str, Any], tied: bool) -> None:
    model = {"tied": tied, "rope_base": 5000.0}
    trained, exported = run_on_ranks(engine_programs.train_and_export, 2, layout, model, str(tmp_path))[0]
    assert np.abs(exported - trained).max() < 1e-5
