"""What the programs that measure several things end alike with."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.errors import SlipwayError


def measure_and_print(cache: Path, measure: Callable[[Path], dict[str, Any]]) -> int:
    """Measures, with a folder that is there meanwhile, and prints the result as the last line; returns the exit code.

    Args:
        cache: What stays from run to run; the folder is made in it.
        measure: Given that folder, the result.
    """
    began = time.monotonic()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="work-") as folder:
            result = measure(Path(folder))
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    result |= {"minutes": round((time.monotonic() - began) / 60, 1), "cores": os.cpu_count()}
    print(json.dumps(result))
    return 0
