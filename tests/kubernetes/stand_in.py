"""A stand-in for training that imports no torch, for tests of the cluster's side: `python -m stand_in RUN`.

It does what a rank does for others to see: a log, events, metrics, a record of its process, and on SIGTERM its step and
a checkpoint. How long it works, and how it ends, stands in the run's config.yaml.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.run.process import announce_process, log_to_file


def main(path: str) -> int:
    run, rank = RunDirectory.open(Path(path)), int(os.environ["JOB_COMPLETION_INDEX"])
    config = run.config()
    log_to_file(run, rank)
    announce_process(run, rank)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    if rank == 0:
        append_event(run, "started", world_size=2)
    newest = max([int(p.name) for p in run.checkpoints.iterdir() if p.name.isdigit()], default=0)
    print(f"rank {rank} starts after step {newest} with secret {os.environ.get('TOKEN', 'none')}", flush=True)
    for step in range(newest + 1, int(config["steps"]) + 1):
        time.sleep(0.05)
        print(f"rank {rank} step {step}", flush=True)
        if rank == 0:
            with run.metrics_path.open("a") as metrics:
                metrics.write(json.dumps({"step": step, "loss": 1 / step}) + "\n")
        if [rank, step] == config.get("fails"):
            append_event(run, "failed", rank=rank, exit_code=3, found=f"rank {rank} fails", expected="", action="")
            return 3
        if asked and config.get("hears", True):
            if rank == 0:
                (run.checkpoints / str(step)).mkdir()
                append_event(run, "checkpointed", step=step)
                append_event(run, "stopped")
            return 0
    if rank == 0:
        (run.artifacts / "model").mkdir(exist_ok=True)
        (run.artifacts / "model" / "weights.bin").write_bytes(bytes(range(256)) * 4096)
        (run.artifacts / "note.txt").write_text("made in a pod\n")
        append_event(run, "finished")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
