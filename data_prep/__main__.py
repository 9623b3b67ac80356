"""`python -m data_prep RUN_DIR`: one process a host, which forks its own workers."""

from __future__ import annotations

import argparse
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


def main(words: list[str]) -> int:
    """Run the stage in a run directory, alone or as one of several hosts.

    Returns:
        0 if the run finished or stopped on request, 2 after a UserError, 1 after any other error.
    """
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--host", type=int, default=0, metavar="N", help="this host's number, from 0")
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="how many hosts run this command")
    arguments = parser.parse_args(words)
    if not 0 <= arguments.host < arguments.hosts:
        parser.error(f"--host {arguments.host}: a number from 0 to {arguments.hosts - 1}")
    try:
        run = RunDirectory.open(arguments.run)
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    listen_for_stop()
    try:
        log_to_file(run, arguments.host)
        announce_process(run, arguments.host)
        return _stage(run, arguments.host, arguments.hosts)
    except StopRequest:
        if arguments.host == 0:
            append_event(run, "stopped")
        return 0
    except SlipwayError as error:
        _report_failure(run, error.parts())
        return error.exit_code
    except Exception as error:
        _report_failure(run, _parts(error, run, arguments.host))
        return 1


def _stage(run: RunDirectory, host: int, count: int) -> int:
    if host == 0:
        append_event(run, "started")
    config = parse(DataPrepConfig, run.config(), str(run.config_path))
    if config.execute.kind != "local" and host:
        return 0  # a cluster's own executor is driven from one host
    # After the check of the recipe: loading the libraries takes seconds.
    from data_prep import pipeline
    from data_prep.executors.hosts import meet

    hosts = meet(run.path / "work" / "hosts", host, count if config.execute.kind == "local" else 1)
    try:
        pipeline.run(config, run, hosts)
    except SlipwayError as error:
        hosts.fail(error.parts())
        raise
    except Exception as error:
        hosts.fail(_parts(error, run, host))
        raise
    if host == 0:
        append_event(run, "finished", peak_memory_gib=peak_resident_gib())
    return 0


def _parts(error: Exception, run: RunDirectory, host: int) -> dict[str, str]:
    return {
        "found": f"{type(error).__name__}: {error}",
        "expected": "no error here: this is not one that the kit foresees",
        "action": f"see the traceback in {log_path(run, host)}; `slipway resume` goes on where it ended",
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
