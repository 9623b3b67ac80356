"""Copies of a GPU's tensors, written while training goes on: marked gpu, never needed for green."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.hardware import count_cuda_devices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(count_cuda_devices() == 0, reason="no CUDA device on this machine"),
]


def test_what_is_written_later_is_what_was_there_and_lies_in_pinned_memory(tmp_path: Path) -> None:
    import torch

    from recipes.checkpoint.writing import await_copies, host_copy, write_later

    live = torch.full((1 << 24,), 3.0, device="cuda")
    copy = host_copy({"live": live, "step": 7})
    writing = write_later({tmp_path / "state.pt": {"nested": [live]}})
    live.zero_()
    await_copies()
    assert copy["step"] == 7
    assert copy["live"].is_pinned()
    assert copy["live"].eq(3.0).all()
    writing()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["nested"][0].eq(3.0).all()
