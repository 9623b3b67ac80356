"""Hosts that run the ranks in a container: what stands for the interpreter there, and what the container may see.

One container a host serves the agent and the ranks, so that they see each other's processes; it is started by whoever
comes first and ends by itself soon after the last (launch/host/keeper.py). The code in the image is not used: what runs
is what was sent.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence

from kit.errors import RunFailure, SlipwayError, UserError
from kit.target import Host, Target

GLOB = frozenset("*?[")
GPUS = {"docker": "--gpus all", "podman": "--device nvidia.com/gpu=all"}
# Arguments: engine, image. Says what is missing; pulls an image that is not there.
LOOK = """
command -v "$1" >/dev/null || { echo "slipway:engine none"; exit; }
said=$("$1" info 2>&1 >/dev/null) || { echo "slipway:engine $(echo "$said" | tail -n 1)"; exit; }
command -v flock >/dev/null || { echo "slipway:flock none"; exit; }
"$1" image inspect "$2" >/dev/null 2>&1 || said=$("$1" pull "$2" 2>&1) ||
  { echo "slipway:image $(echo "$said" | tail -n 1)"; exit; }
said=$("$1" run --rm --network none --entrypoint python3 "$2" -c 'import psutil, pydantic, torch' 2>&1) ||
  echo "slipway:packages $(echo "$said" | tail -n 1)"
"""
# Stands in for an interpreter: `python -m launch.host ...` on the host, and the commands of the job in the container.
WRAPPER = """\
#!/bin/sh
# Python inside the container that this host's ranks run in; starts the container where there is none.
[ -z "$SLIPWAY_CONTAINER" ] || exec python3 "$@"
engine={engine} folder={folder} name=slipway-$(id -u)-{mark}
mkdir -p "$folder/home" && exec 9>"$folder/lock" && flock 9 || exit 125
running() {{ [ "$("$engine" container inspect -f '{{{{.State.Running}}}}' "$name" 2>/dev/null)" = true ]; }}
if [ ! -e "$folder/wanted" ] || ! running; then
  "$engine" rm -f "$name" >/dev/null 2>&1 9>&-
  mine="--user $(id -u):$(id -g)" limits="--ulimit memlock=-1 --ulimit stack=67108864" devices={devices}
  case $engine in
    podman) [ "$(id -u)" = 0 ] || {{ mine=--userns=keep-id limits=; }};;
    docker) ! docker info -f '{{{{.SecurityOptions}}}}' 2>/dev/null | grep -q rootless ||
      {{ mine="--user 0:0" limits=; }};;
  esac
  [ -z "$devices" ] || devices="$devices $limits"
  [ -z "$devices" ] || [ ! -d /dev/infiniband ] || devices="$devices --device /dev/infiniband"
  touch "$folder/wanted"
  "$engine" run -d --rm --name "$name" --network host --ipc host --pids-limit -1 --security-opt label=disable \\
    $mine $devices {mounts} -w {workdir} -e PYTHONPATH -e SLIPWAY_CONTAINER={mark} -e HOME="$folder/home" \\
    -e USER=slipway -e LOGNAME=slipway --entrypoint python3 {image} -m launch.host keep "$folder" >/dev/null 9>&- ||
    exit 125
fi
touch "$folder/wanted"
exec 9>&-
exec "$engine" exec -i -e PYTHONPATH "$name" python3 "$@"
"""


def container_mark(target: Target, absolute: Sequence[str]) -> str:
    """Names a container that differs in nothing that a job could notice; `absolute`: the inputs at absolute paths.

    Raises:
        UserError: The target names no image.
    """
    settings = target.environment
    if not settings.image:
        raise UserError(
            "environment.mode is container, and environment.image is empty",
            expected="an image that the hosts have, or can pull",
            action="write `image: slipway:cpu` into the target; `make images` builds it",
        )
    facts = (
        settings.engine,
        settings.image,
        target.device,
        target.workdir,
        target.storage,
        _outside(absolute),
        WRAPPER,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def wrapper(target: Target, mark: str, work: str, runs: str, absolute: Sequence[str]) -> str:
    """The script that stands for the interpreter on one host, whose folders are `work` and `runs`."""
    settings = target.environment
    own = [f"{folder}:{folder}" for folder in dict.fromkeys((work, runs))]
    mounts = [*own, *(f"{folder}:{folder}:ro" for folder in _outside(absolute))]
    return WRAPPER.format(
        engine=settings.engine,
        folder=shlex.quote(f"{work}/containers/{mark}"),
        mark=mark,
        devices=shlex.quote(GPUS[settings.engine] if target.device == "cuda" else ""),
        mounts=" ".join(shlex.quote(word) for mount in mounts for word in ("-v", mount)),
        workdir=shlex.quote(work),
        image=shlex.quote(settings.image),
    )


def refusal(target: Target, host: Host, printed: str) -> SlipwayError | None:
    """What a host's answer to LOOK means; None: it has engine and image."""
    said = [line.removeprefix("slipway:") for line in printed.splitlines() if line.startswith("slipway:")]
    if not said:
        return None
    what, _, words = said[0].partition(" ")
    engine, image = target.environment.engine, target.environment.image
    if what == "image":
        return RunFailure(
            f"host {host.name} has no image {image}, and {engine} can't pull it: {words}",
            expected="the image on the host, or a registry that it may pull it from",
            action=f"`{engine} save {image} | ssh {host.reach} {engine} load`, or `{engine} login` there",
        )
    if what == "packages":
        return RunFailure(
            f"host {host.name}: the image {image} does not do: {words}",
            expected="an image with python3 and the packages of the lock, which runs there",
            action=f"build it with `make images`; try `{engine} run --rm {image} true` on {host.name}",
        )
    if what == "engine" and words != "none":
        return RunFailure(
            f"host {host.name}: {engine} doesn't answer: {words}",
            expected=f"`{engine} info` to work for the user that logs in",
            action=f"try it on {host.name}; for docker: is its service on, and the user in the group docker?",
        )
    missing = engine if what == "engine" else what
    return UserError(
        f"host {host.name} has no `{missing}`",
        expected="what environment.mode container needs: the engine, and flock of util-linux",
        action=f"install it on {host.name}, or choose another environment.engine or environment.mode",
    )


def _outside(absolute: Sequence[str]) -> list[str]:
    """What a container must see of the host so that inputs at absolute paths are there."""
    found = []
    for path in absolute:
        parts = path.split("/")
        plain = next((i for i, part in enumerate(parts) if GLOB & set(part)), len(parts))
        found.append("/".join(parts[:plain]) or "/")
    return sorted(set(found))
