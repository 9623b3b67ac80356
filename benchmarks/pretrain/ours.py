"""Our side: a rank of the pretrain stage as the launcher starts it, except that it waits for its turns.

    python -m benchmarks.pretrain.ours RUN_DIR

The stage, its loop, its metrics and its engine are the product's; the table of engines gets another entry.
"""

from __future__ import annotations

import os
import sys

import recipes.__main__ as ranks
from benchmarks.pretrain.turns import Pace
from recipes.engines.table import ENGINES, engine_class


def main(arguments: list[str]) -> int:
    """Runs the stage."""
    pace = Pace(first=os.environ.get("RANK", "0") == "0")
    ENGINES["megatron"] = "benchmarks.pretrain.paced:PacedEngine"
    engine_class("megatron").pace = pace
    return ranks.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
