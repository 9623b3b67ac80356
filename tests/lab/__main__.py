"""A lab to try things on: `python tests/lab up 2`, `list`, `run NAME HOST COMMAND`, `down [NAME]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import host_lab
from lab.host_lab import FOLDER, HostLab
from lab.machine import Machine
from lab.network import Network


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up").add_argument("count", type=int, nargs="?", default=2)
    verbs.add_parser("list")
    verbs.add_parser("down").add_argument("names", nargs="*")
    inside = verbs.add_parser("run")
    inside.add_argument("name")
    inside.add_argument("host")
    inside.add_argument("command")
    chosen = parser.parse_args()
    reason = host_lab.missing()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    if chosen.verb == "up":
        lab = HostLab(chosen.count, detached=True)
        lab.open()
        print(f"{lab.name}: {', '.join(f'{name} {lab.address(name)}' for name in lab.hosts)}")
        print(f"slipway run RECIPE --on {lab.target()}")
        print(f"ssh -i {lab.identity} -o UserKnownHostsFile={lab.known_hosts} root@{lab.address('n1')}")
    elif chosen.verb == "down":
        for name in chosen.names or host_lab.lab_names():
            host_lab.close(name)
    elif chosen.verb == "run":
        folder = FOLDER / chosen.name
        host = Machine(chosen.host, 0, folder / chosen.host, Network(chosen.name, ""), folder / "hosts")
        assert host.init is not None, f"{chosen.host} is off"
        return subprocess.run(["nsenter", "-t", str(host.init.pid), "-a", "sh", "-c", chosen.command]).returncode
    else:
        print("\n".join(host_lab.lab_names()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
