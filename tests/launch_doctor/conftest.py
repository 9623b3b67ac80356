from __future__ import annotations

import sys
from pathlib import Path

# Test modules aren't packages; what several of them share lies in tests/ itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
