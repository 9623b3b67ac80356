"""Weights read straight from a checkpoint of this engine, whatever ZeRO stage and number of ranks wrote it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from recipes.engines.deepspeed.state import TAG
from recipes.engines.stored import Stream, by_name, mapped
from recipes.model.config import ModelConfig

MODEL_FILE = "mp_rank_00_model_states.pt"


def stored_weights(folder: Path, model: ModelConfig) -> Stream:
    """Up to stage 2 the model lies there whole; stage 3 has only the ranks' parts of the fp32 master weights."""
    whole = folder / TAG / MODEL_FILE
    if whole.is_file():
        # Settings lie in the same file as plain objects; it is our own, and its checksum has been verified.
        return by_name(mapped(whole, weights_only=False)["module"], folder, model)
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        parts = get_fp32_state_dict_from_zero_checkpoint(str(folder), TAG, lazy_mode=True)
    return by_name(parts, folder, model)
