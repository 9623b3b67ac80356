from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules aren't packages; what several of them share lies beside them.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from image_store import ImageStore, missing_parts


@pytest.fixture(scope="session")
def store() -> Iterator[ImageStore]:
    """Where the tests keep images: layers stay for the next session."""
    if missing := missing_parts():
        pytest.skip(f"builds an image: needs {', '.join(missing)}")
    found = ImageStore()
    with found.exclusive():
        yield found
