"""Imported first by every process of this room: settings that torch and transformers read when they are imported.

No compiler on the CPU path, no network, no telemetry, no progress bars in logs.
"""

from __future__ import annotations

import os

SETTINGS = {
    "TORCHDYNAMO_DISABLE": "1",
    "DS_ACCELERATOR": "cuda" if os.path.exists("/dev/nvidiactl") else "cpu",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
