"""Makes of a rendered job what docker/compose.yaml reads: `python -m infra.compose DIR`.

`slipway run RECIPE --on TARGET --render DIR` writes Kubernetes objects. The ConfigMap's files become DIR/job, which
every container mounts as a pod would, and DIR/compose.env names the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.config import read_yaml
from kit.errors import SlipwayError, UserError

CONFIG_MAP = "1-configmap.yaml"
JOB = "3-job.yaml"
NODES = 2
"""Services of docker/compose.yaml."""


def unpack(folder: Path, runs: Path) -> dict[str, str]:
    """Writes DIR/job and DIR/compose.env; returns the variables.

    Args:
        folder: What --render wrote.
        runs: The folder of runs here; the parents of the job lie in it.

    Raises:
        UserError: A file is missing, or the job isn't one of two hosts.
    """
    missing = [name for name in (CONFIG_MAP, JOB) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}",
            expected="a folder that `slipway run RECIPE --on TARGET --render DIR` wrote",
            action="render the job first",
        )
    files = read_yaml(folder / CONFIG_MAP)["data"]
    job = read_yaml(folder / JOB)
    hosts = int(job["spec"]["completions"])
    if hosts != NODES:
        raise UserError(
            f"{folder / JOB}: a job of {hosts} pods",
            expected=f"{NODES}: docker/compose.yaml has so many services",
            action="choose devices_per_host so that the ranks fill two hosts",
        )
    (folder / "job").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "job" / name).write_text(text, encoding="utf-8")
    variables = _variables(job, folder.resolve(), runs.resolve())
    (folder / "compose.env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return variables


def _variables(job: dict[str, Any], folder: Path, runs: Path) -> dict[str, str]:
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    return {
        "SLIPWAY_IMAGE": container["image"],
        "SLIPWAY_JOB": job["metadata"]["name"],
        "SLIPWAY_JOB_FOLDER": str(folder / "job"),
        "SLIPWAY_RUN": Path(container["command"][-1]).name,
        "SLIPWAY_RUNS": str(runs),
        "SLIPWAY_USER": str(pod["securityContext"]["runAsUser"]),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Unpacks one job and says how to start it."""
    parser = argparse.ArgumentParser(prog="infra.compose", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--json", action="store_true", help="the variables as one JSON object")
    arguments = parser.parse_args(words)
    try:
        variables = unpack(arguments.folder, arguments.runs)
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(variables))
    else:
        print(f"docker compose --env-file {arguments.folder / 'compose.env'} --file docker/compose.yaml up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
