"""What a rank says of the place where it runs."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kit.hardware import available_cores
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import Processes

SHARED_MEMORY = Path("/dev/shm")
MATMUL_SECONDS = 0.2


def rank_facts(processes: Processes, folder: Path) -> dict[str, Any]:
    """One rank's own facts. *Collective*: every rank, because all multiply matrices at the same time.

    Args:
        processes: This process among the job's.
        folder: The run directory, whose disk is asked for its free space.
    """
    processes.barrier()
    # As if alone: the peak of this rank and not the sum over all.
    rate, words = measure_peak(replace(processes, world_size=1), torch.float32, MATMUL_SECONDS)
    facts: dict[str, Any] = {
        "rank": processes.rank,
        "local_rank": int(os.environ.get("LOCAL_RANK", "0")),
        "host": socket.gethostname(),
        "device": processes.device_words,
        "threads": processes.threads,
        "cores": available_cores(),
        "matmul_flops_per_second": rate,
        "matmul": words,
        "torch": str(torch.__version__),
        "shared_memory_bytes": shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        "disk_free_bytes": shutil.disk_usage(folder).free,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    return facts | (_cuda_facts(processes.device) if processes.device.type == "cuda" else {})


def _cuda_facts(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "device_uuid": str(getattr(properties, "uuid", "")),
        "device_memory_bytes": total,
        "device_memory_free_bytes": free,
    }
