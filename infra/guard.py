"""The limits of a rented cluster: whether one is reached, and a process that destroys the cluster then.

    python -m infra.guard runs/clusters/NAME

`slipway up` starts it and `slipway down` ends it. It is the second of three: a run stops itself a little before the
limit; this process destroys the cluster at the limit; and the instances switch themselves off then in any case, also
where this machine sleeps or its credentials have expired.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from infra import aws
from infra.aws_cluster import Cluster, ClusterFolder
from kit.errors import SlipwayError
from kit.files import atomic_write

POLL_SECONDS = 5.0
RETRY_SECONDS = 60.0
# A run wants to write its last checkpoint and send it home before its hosts are gone.
LEAD = timedelta(minutes=10)


def limit_reached(cluster: Cluster, now: datetime | None = None, ahead: bool = False) -> str | None:
    """Says which limit is reached; None: none is.

    Args:
        cluster: The record.
        now: The time; None: now.
        ahead: Whether to speak up earlier, by ten minutes but at most a tenth of the cluster's time, so that a run can
            still stop politely and be fetched.
    """
    now = now or datetime.now(UTC)
    lead = min(LEAD, (cluster.until - cluster.created) / 10) if ahead else timedelta()
    if now + lead < cluster.until:
        return None
    settings = cluster.settings
    name, value = "max_hours", f"{settings.max_hours:g}"
    if cluster.limit_hours < settings.max_hours:
        name, value = "max_cost_usd", f"{settings.max_cost_usd:g}"
    word = "nearly reached" if now < cluster.until else "reached"
    spent = f"{cluster.hours(now):.2f} hours, {cluster.cost_usd(now):.2f} USD"
    return f"aws.{name}: {value} is {word} ({spent}) by the cluster {cluster.name}"


def start(folder: ClusterFolder) -> None:
    """Start the guard of a cluster as a process that outlives this one; does nothing where one runs."""
    if running(folder):
        return
    with (folder.path / "guard.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.guard", str(folder.path)],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # The start time too, so that a process id that was given out again is never taken for the guard's.
    record = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
    atomic_write(folder.path / "guard.json", json.dumps(record) + "\n")


def running(folder: ClusterFolder) -> psutil.Process | None:
    """The guard's process; None: there is none."""
    try:
        record = json.loads((folder.path / "guard.json").read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return process if same else None


def end(process: psutil.Process | None) -> None:
    """End a guard whose cluster is gone."""
    with contextlib.suppress(psutil.Error):
        if process and process.is_running():
            process.terminate()
            process.wait(10)


def watch(folder: ClusterFolder) -> int:
    """Wait until a limit is reached and destroy the cluster; ends too where somebody else has destroyed it."""
    while folder.exists():
        try:
            cluster = folder.read()
            reason = limit_reached(cluster)
            if reason:
                _note(reason)
                aws.destroy(folder.clusters.parent, cluster.settings, _note, reason)
                return 0
        except SlipwayError as error:
            _note(str(error))
            time.sleep(RETRY_SECONDS)
        time.sleep(POLL_SECONDS)
    return 0


def _note(text: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(watch(ClusterFolder.at(Path(sys.argv[1]))))
