from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

# Test modules aren't packages; what several of them share lies in tests/ itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ["TORCHDYNAMO_DISABLE"] = "1"
# Tiny tensors: threads that wait for one another cost more than they compute.
torch.set_num_threads(1)
