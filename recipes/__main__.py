"""`python -m recipes RUN_DIR`: one rank of a stage. torchrun starts one for every process of the job."""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from pathlib import Path

import recipes.quiet  # noqa: F401  before anything imports torch
from kit.config import parse
from kit.errors import SlipwayError, UserError
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.run.process import announce_process, log_to_file, peak_resident_gib
from recipes.stages import STAGES, load_object
from recipes.stop import STOP, Stopped

UNEXPECTED_EXIT_CODE = 1


def main(arguments: list[str]) -> int:
    """Runs the stage that the run directory's configuration names; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m recipes RUN_DIR", file=sys.stderr)
        return UserError.exit_code
    run = RunDirectory.open(Path(arguments[0]))
    rank = int(os.environ.get("RANK", "0"))
    STOP.listen()
    log_to_file(run, rank)
    announce_process(run, rank)
    warnings.filterwarnings("ignore", module=r"megatron|torch")
    try:
        _run_stage(run, rank)
    except Stopped:
        _final_event(run, rank, "stopped")
        return 0
    except Exception as error:
        return _fail(run, rank, error)
    _final_event(run, rank, "finished")
    return 0


def _run_stage(run: RunDirectory, rank: int) -> None:
    data = run.config()
    stage = STAGES.get(str(data.get("stage")))
    if stage is None:
        raise UserError(
            f"{run.config_path}: stage {data.get('stage')!r}",
            expected=f"one of: {', '.join(STAGES)}",
            action="start the run with `slipway run RECIPE`",
        )
    config = parse(load_object(stage.config), data, str(run.config_path))
    if rank == 0:
        append_event(run, "started", world_size=int(os.environ.get("WORLD_SIZE", "1")))
    if getattr(config, "engine", None) == "megatron":
        # One queue of work: else messages of the tensor and context axes that should overlap a product may start after
        # it. CUDA reads it when the first device is touched, which is later.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    function = load_object(stage.run)
    try:
        function(config, run)
    finally:
        load_object("recipes.distributed.processes:leave")()


def _final_event(run: RunDirectory, rank: int, kind: str) -> None:
    if rank == 0:
        append_event(run, kind, peak_memory_gib=peak_resident_gib())


def _fail(run: RunDirectory, rank: int, error: Exception) -> int:
    traceback.print_exc()
    sys.stderr.flush()
    ours = isinstance(error, SlipwayError)
    if not ours and rank != 0:
        # Most often the echo of another rank's failure; whoever failed first should be heard.
        time.sleep(1.0)
    code = error.exit_code if isinstance(error, SlipwayError) else UNEXPECTED_EXIT_CODE
    if _first_to_fail(run):
        # torchrun ends with 1 whatever its ranks ended with, so the code goes into the event too.
        append_event(run, "failed", rank=rank, exit_code=code, **_parts(run, rank, error))
    return code


def _parts(run: RunDirectory, rank: int, error: Exception) -> dict[str, str]:
    if isinstance(error, SlipwayError):
        return error.parts()
    return {
        "found": f"rank {rank}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else '(no words)'}",
        "expected": "a stage that finishes",
        "action": f"see {run.logs / f'rank-{rank:05d}.log'}, mend the reason, then `slipway resume {run.id}`",
    }


def _first_to_fail(run: RunDirectory) -> bool:
    """Whether no other rank of this attempt has written its failure yet."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    mark = run.path / "processes" / f"failure-{os.getppid()}-{attempt}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:
        # A full disk mustn't hide the failure that it caused.
        return True
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
