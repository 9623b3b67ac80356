"""`python -m data_prep RUN_DIR`: one process, which forks its own workers."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from pathlib import Path

from data_prep.config import DataPrepConfig
from data_prep.processes import StopRequest, listen_for_stop
from kit.config import parse
from kit.errors import SlipwayError
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.run.process import announce_process, log_path, log_to_file, peak_resident_gib


def main(arguments: list[str]) -> int:
    """Run the stage in a run directory.

    Returns:
        0 if the run finished or stopped on request, 2 after a UserError, 1 after any other error.
    """
    if len(arguments) != 1:
        print("usage: python -m data_prep RUN_DIR", file=sys.stderr)
        return 2
    try:
        run = RunDirectory.open(Path(arguments[0]))
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    listen_for_stop()
    try:
        log_to_file(run, rank=0)
        announce_process(run, rank=0)
        return _stage(run)
    except StopRequest:
        append_event(run, "stopped")
        return 0
    except SlipwayError as error:
        _report_failure(run, error.parts())
        return error.exit_code
    except Exception as error:
        _report_failure(run, _parts(error, run))
        return 1


def _stage(run: RunDirectory) -> int:
    append_event(run, "started")
    config = parse(DataPrepConfig, run.config(), str(run.config_path))
    from data_prep import pipeline  # after the check of the recipe: loading the libraries takes seconds

    pipeline.run(config, run)
    append_event(run, "finished", peak_memory_gib=peak_resident_gib())
    return 0


def _parts(error: Exception, run: RunDirectory) -> dict[str, str]:
    return {
        "found": f"{type(error).__name__}: {error}",
        "expected": "no error here: this is not one that the kit foresees",
        "action": f"see the traceback in {log_path(run, rank=0)}; `slipway resume` goes on where it ended",
    }


def _report_failure(run: RunDirectory, parts: dict[str, str]) -> None:
    """Write the event, then the traceback to the log; the disk may be full, and the event matters more.

    Half-written files and the logs of single tasks are of no use after a failure, so they make room.
    """
    try:
        append_event(run, "failed", **parts)
    except SlipwayError:
        for pattern in ("*.partial", "steps/*/logs/*"):
            for path in (run.path / "work").rglob(pattern):
                path.unlink(missing_ok=True)
        with suppress(SlipwayError):
            append_event(run, "failed", **parts)
    with suppress(OSError):
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
