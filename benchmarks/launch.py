"""Seconds from the command to the first training step: `slipway run` against bare torchrun over ssh, alternating.

Both start the same two-rank recipe on the same two prepared hosts. Bare torchrun is what one would type: one ssh
to each host with the torchrun line, the run directory being there already. Both clocks run on this machine, until the
first step's record is here (slipway) or is known here to be written (torchrun). The last line is JSON.

    python -m benchmarks.launch --on TARGET     a target of kind ssh with two hosts
    python -m benchmarks.launch                 two namespace hosts of tests/lab on this machine (root)
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.run.directory import RunDirectory
from kit.target import Target
from launch.executors.ssh_command import ssh_command
from launch.executors.ssh_host import RemoteHost
from launch.executors.table import executor_for
from launch.job import Place, host_job
from launch.prepare import job_of_run

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "tests" / "lab"
SLIPWAY = [sys.executable, "-m", "launch.cli"]
RECIPE = ["pretrain/tiny", "--set", "layout.data=2", "--set", "budget.steps=3", "--set", "schedule.warmup_steps=0"]
RECIPE += ["--set", "export=false", "--set", "checkpoint.every_steps=null", "--set", "validation.every_steps=null"]
POLL_SECONDS = 0.05


def slipway_seconds(target: str, runs: Path) -> tuple[float, RunDirectory]:
    """One `slipway run`: seconds to the first record here, and its run directory."""
    before = set(runs.glob("*-pretrain-tiny-*"))
    began = time.monotonic()
    command = [*SLIPWAY, "run", *RECIPE, "--on", target, "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    first: float | None = None
    while process.poll() is None:
        new = [path for path in runs.glob("*-pretrain-tiny-*") if path not in before]
        if first is None and new and (new[0] / "metrics.jsonl").exists() and (new[0] / "metrics.jsonl").stat().st_size:
            first = time.monotonic() - began
        time.sleep(POLL_SECONDS)
    assert process.returncode == 0 and first is not None, f"slipway run ended with {process.returncode}"
    (path,) = set(runs.glob("*-pretrain-tiny-*")) - before
    return first, RunDirectory(path)


def bare_seconds(run: RunDirectory, attempt: int) -> float:
    """The same job by ssh and torchrun alone, in a fresh folder on every host: seconds to the first record there."""
    job = job_of_run(run)
    places = json.loads((run.processes / "places.json").read_text())
    remotes = [RemoteHost(job.target, host, Place(**places[host.name])) for host in job.target.hosts[: job.work.hosts]]
    fresh = {remote.name: f"{remote.place.run}-bare-{attempt}" for remote in remotes}
    for remote in remotes:
        new = shlex.quote(fresh[remote.name])
        files = " ".join(
            shlex.quote(f"{remote.place.run}/{name}") for name in ("config.yaml", "manifest.json", "target.yaml")
        )
        script = f"mkdir -p {new}/logs {new}/processes {new}/checkpoints {new}/artifacts && cp {files} {new}/"
        subprocess.run(ssh_command(job.target, remote.host, "sh", "-c", script), check=True)
    port = remotes[0].call("port", remotes[0].place.address)["port"]
    began = time.monotonic()
    started = [_torchrun(remote, job.target, fresh[remote.name], port, run) for remote in remotes]
    wait = f"while ! [ -s {shlex.quote(fresh[remotes[0].name])}/metrics.jsonl ]; do sleep {POLL_SECONDS}; done"
    subprocess.run(ssh_command(job.target, remotes[0].host, "sh", "-c", wait), check=True, timeout=300)
    seconds = time.monotonic() - began
    codes = [process.wait(300) for process in started]
    assert codes == [0] * len(remotes), f"bare torchrun ended with {codes}"
    return seconds


def _torchrun(remote: RemoteHost, target: Target, folder: str, port: int, run: RunDirectory) -> subprocess.Popen[bytes]:
    place = Place(**{**vars(remote.place), "run": folder, "master_port": port})
    job = host_job(job_of_run(run).work, place)
    variables = [f"{name}={value}" for name, value in job.environment.items()]
    where = ["env", "-C", str(job.working_directory or "/"), *variables]
    return subprocess.Popen(
        ssh_command(target, remote.host, *where, *job.command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


@contextmanager
def lab() -> Iterator[str]:
    """Two namespace hosts on this machine; yields their target."""
    made = subprocess.run([sys.executable, str(LAB), "up", "2"], capture_output=True, text=True, check=True).stdout
    target = re.search(r"--on (\S+)", made)
    assert target, made
    try:
        yield target[1]
    finally:
        subprocess.run([sys.executable, str(LAB), "down", made.partition(":")[0]], check=True)


def measure(target: str, pairs: int, runs: Path) -> dict[str, object]:
    """Alternate the two; the first slipway run prepares the hosts and is not counted."""
    subprocess.run([*SLIPWAY, "run", *RECIPE, "--on", target, "--runs", str(runs), "--with-parents"], check=True)
    ours: list[float] = []
    peers: list[float] = []
    for pair in range(1, pairs + 1):
        seconds, run = slipway_seconds(target, runs)
        ours.append(seconds)
        peers.append(bare_seconds(run, pair))
        print(f"pair {pair}: slipway {ours[-1]:.1f} s, bare torchrun {peers[-1]:.1f} s", flush=True)
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    assert executor_for(job_of_run(run).target).status(job_of_run(run)).live is False
    return {
        "benchmark": "launch",
        "what": "seconds to the first step, two ranks on two prepared hosts",
        "peer": "torchrun by ssh on each host",
        "slipway_seconds": statistics.median(ours),
        "peer_seconds": statistics.median(peers),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "pairs": len(ratios),
    }


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", metavar="TARGET", help="a target of kind ssh; left out: two namespace hosts here")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.on:
        result = measure(arguments.on, arguments.pairs, arguments.runs)
    else:
        with lab() as target:
            result = measure(target, arguments.pairs, arguments.runs)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
