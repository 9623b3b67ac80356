"""Property tests give the same examples on every machine, and have no time limit: cores are shared."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(__file__).resolve().parents[1] / ".cache" / "hypothesis")
settings.register_profile("slipway", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("slipway")
