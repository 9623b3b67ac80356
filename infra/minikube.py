"""A Kubernetes cluster on this machine, with the CPU image in it, and a recipe trained on it by two pods.

`python -m infra.minikube` (`make minikube`) with minikube; CLUSTER=kind or k3s takes the same path. What is missing is
said before anything starts; what is there already is used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import images
from kit.errors import RunFailure, SlipwayError, UserError

ROOT = Path(__file__).resolve().parents[1]
NAME = "slipway"  # of the minikube profile and of the kind cluster
TAG = "docker.io/library/slipway:cpu"  # in full: podman would put localhost/ before a short name
RUNS = "/var/lib/slipway-runs"
USER = "1000"
RECIPE = "pretrain/demo"
DRIVERS = ("docker", "podman", "kvm2", "qemu2", "virtualbox")
WORKS_WITH = {
    "docker": ("docker", "info"),
    "podman": ("podman", "info"),
    "kvm2": ("virsh", "version"),
    "qemu2": ("qemu-system-x86_64", "--version"),
    "virtualbox": ("VBoxManage", "--version"),
}
INSTALL = {
    "minikube": "https://minikube.sigs.k8s.io/docs/start (one file; no root needed)",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start (one file; no root needed)",
    "k3s": "https://docs.k3s.io/quick-start (root needed)",
    "kubectl": "https://kubernetes.io/docs/tasks/tools (one file; no root needed)",
    "driver": "docker (https://docs.docker.com/engine/install) or podman (Debian, Ubuntu: apt install podman)",
}
NEEDED = {"minikube": ("minikube", "kubectl"), "kind": ("kind", "kubectl"), "k3s": ("k3s", "kubectl")}

Command = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One thing to do: its words for a person, its command, and what tells that it is done already."""

    words: str
    command: Command
    unless: Command | None = None


def check_tools(cluster: str) -> str:
    """Returns the driver (for k3s: what builds images).

    Raises:
        UserError: A tool is missing; names all that are, and where each comes from.
    """
    missing = [tool for tool in NEEDED[cluster] if shutil.which(tool) is None]
    choices = DRIVERS if cluster == "minikube" else ("docker", "podman")
    there = [name for name in choices if shutil.which(WORKS_WITH[name][0])]
    driver = next((name for name in there if _succeeds(WORKS_WITH[name])), None)
    if driver is None:
        missing.append("driver")
    if not missing and driver is not None:
        return driver
    what = [f"no {tool}" for tool in missing if tool != "driver"]
    if "driver" in missing:
        silent = f" ({', '.join(there)} is installed and doesn't answer)" if there else ""
        what.append(f"no driver that works, that is none of {', '.join(choices)}{silent}")
    raise UserError(
        f"{', '.join(what)} on this machine",
        expected=f"{', '.join(NEEDED[cluster])} and something that runs containers",
        action="install " + "; ".join(f"{tool}: {INSTALL[tool]}" for tool in missing),
    )


def steps(cluster: str, driver: str, archive: Path) -> list[Step]:
    """What makes the cluster, brings the image into it, and gives the pods a folder for their runs. Pure."""
    own = ("install", "-d", "-o", USER, "-g", USER, RUNS)
    if cluster == "minikube":
        minikube = ("minikube", "--profile", NAME)
        return [
            Step(
                "Starting minikube",
                (*minikube, "start", "--driver", driver, "--cpus", "2", "--memory", "4g"),
                unless=(*minikube, "status"),
            ),
            Step("Building the CPU image in minikube", (*minikube, "image", "build", *_minikube_build(), ".")),
            Step("Making the folder of runs", (*minikube, "ssh", "--", "sudo", *own)),
        ]
    build = (sys.executable, "-m", "infra.images", "cpu", "--engine", driver, "--tag", TAG)
    image = [
        Step("Building the CPU image", build),
        Step("Packing it", (driver, "save", "--output", str(archive), TAG)),
    ]
    if cluster == "kind":
        kind = ("kind", "create", "cluster", "--name", NAME, "--wait", "180s")
        there = ("kubectl", "--context", f"kind-{NAME}", "get", "nodes")
        return [
            Step("Making a kind cluster", _with_provider(driver, kind), unless=there),
            *image,
            Step(
                "Bringing it into kind",
                _with_provider(driver, ("kind", "load", "image-archive", str(archive), "--name", NAME)),
            ),
            Step("Making the folder of runs", (driver, "exec", f"{NAME}-control-plane", *own)),
        ]
    return [
        *image,
        Step("Bringing it into k3s", ("sudo", "k3s", "ctr", "images", "import", str(archive))),
        Step("Making the folder of runs", ("sudo", *own)),
    ]


def run_recipe(cluster: str, recipe: str) -> Path:
    """Trains a recipe on two pods, with its parents; the output is the command's own. Returns the report.

    Raises:
        RunFailure: The run fails, or ends without its directory.
    """
    command = [sys.executable, "-m", "launch.cli", "run", recipe, "--on", cluster, "--with-parents", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RunFailure(
            f"`slipway run {recipe} --on {cluster}` ended with {done.returncode}",
            expected="a finished run",
            action="see the lines above; `slipway logs --last` and `slipway resume --last` go on from there",
        )
    run = str(json.loads(lines[-1])["path"])
    subprocess.run([sys.executable, "-m", "launch.cli", "report", run], cwd=ROOT, check=False)
    return Path(run) / "report" / "report.html"


def main(words: Sequence[str] | None = None) -> int:
    """Checks, starts, builds, trains, shows."""
    parser = argparse.ArgumentParser(prog="infra.minikube", description=__doc__)
    parser.add_argument("cluster", nargs="?", default="minikube", choices=sorted(NEEDED))
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--only-prepare", action="store_true", help="stop before the recipe")
    arguments = parser.parse_args(sys.argv[1:] if words is None else list(words))
    try:
        driver = check_tools(arguments.cluster)
        with tempfile.TemporaryDirectory() as folder:
            for step in steps(arguments.cluster, driver, Path(folder) / "slipway-cpu.tar"):
                do(step, _say)
        if not arguments.only_prepare:
            show(run_recipe(arguments.cluster, arguments.recipe), _say)
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def do(step: Step, say: Callable[[str], None]) -> None:
    """Does a step, unless it is done.

    Raises:
        RunFailure: Its command fails.
    """
    if step.unless and _succeeds(step.unless):
        say(f"{step.words}: there already")
        return
    say(f"{step.words}: {' '.join(step.command)}")
    code = subprocess.run(step.command, cwd=ROOT, check=False).returncode
    if code:
        raise RunFailure(
            f"`{' '.join(step.command[:6])} ...` ended with {code}",
            expected="exit code 0",
            action="read its lines above; after mending, the same command goes on where this one stopped",
        )


def show(report: Path, say: Callable[[str], None]) -> None:
    """Opens the report where there is a desktop, and names it in any case."""
    say(f"Report: {report}")
    opener = shutil.which("xdg-open") or shutil.which("open")
    if opener and report.exists():
        subprocess.run([opener, str(report)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _minikube_build() -> tuple[str, ...]:
    """The words between `minikube image build` and the folder: the same arguments as those of `make images`."""
    command = images.build_command("cpu", "docker", TAG, images.read_versions(), ())
    arguments = [command[i + 1] for i, word in enumerate(command) if word == "--build-arg"]
    file = str(images.dockerfile("cpu").relative_to(ROOT))
    return ("--tag", TAG, "--file", file, *(f"--build-opt=build-arg={argument}" for argument in arguments))


def _with_provider(driver: str, command: Command) -> Command:
    return ("env", "KIND_EXPERIMENTAL_PROVIDER=podman", *command) if driver == "podman" else command


def _succeeds(command: Command) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
