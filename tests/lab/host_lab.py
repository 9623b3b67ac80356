"""Several hosts on one machine: real sshd, own addresses, homes and processes, and a network that can be slow or cut.

    with HostLab(2) as lab:
        target = lab.target(devices_per_host=1)  # a target file for `slipway run --on`
        lab.poweroff(lab.hosts[1])

Needs root and Linux's namespaces. The hosts share this machine's files but not its home, /tmp or checkout (the
environment's Python stays visible), so a copy that was not made shows as a missing file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lab.machine import Machine, new_key
from lab.network import Network, free_subnet

from kit.config import dump, merge

FOLDER = Path("/var/tmp/slipway-lab")
TOOLS = ("ip", "tc", "nsenter", "unshare", "sshd", "ssh", "ssh-keygen")


def missing() -> str | None:
    """Why a lab can't be made here; None: it can."""
    if not sys.platform.startswith("linux"):
        return "a lab of hosts needs Linux's namespaces"
    if os.geteuid() != 0:
        return "a lab of hosts needs root: namespaces, mounts, sshd"
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    return (
        f"a lab of hosts needs {', '.join(lacking)} (Debian: openssh-server iproute2 util-linux)" if lacking else None
    )


class HostLab:
    """Hosts n1, n2, ... behind one switch. Everything is gone after `with`, or after `close`.

    Args:
        count: How many hosts.
        pin: Whether each host may use one core only (host i core i, in turn).
        detached: Whether the hosts outlive this process (`close` them by name, as `python tests/lab down` does).
    """

    def __init__(self, count: int = 2, pin: bool = False, detached: bool = False) -> None:
        self.name = f"lab{secrets.token_hex(2)}"
        self.folder = FOLDER / self.name
        self.count, self.pin, self.detached = count, pin, detached
        self.machines: dict[str, Machine] = {}
        self._targets = 0

    def __enter__(self) -> HostLab:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Make and boot the hosts."""
        remove_deserted()
        self.network = Network(self.name, free_subnet())
        self.folder.mkdir(parents=True)
        owner = None if self.detached else psutil.Process()
        facts = {"subnet": self.network.subnet, "pid": owner and owner.pid, "started": owner and owner.create_time()}
        (self.folder / "lab.json").write_text(json.dumps(facts))
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self.network.open()
        new_key(self.identity, "slipway-lab")
        names = {f"n{i + 1}": i + 1 for i in range(self.count)}
        lines = ["127.0.0.1 localhost", *(f"{self.network.address(number)} {name}" for name, number in names.items())]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        cores = sorted(os.sched_getaffinity(0))
        for name, number in names.items():
            core = cores[(number - 1) % len(cores)] if self.pin else None
            host = Machine(
                name, number, self.folder / name, self.network, self.folder / "hosts", core, detached=self.detached
            )
            self.machines[name] = host
            host.install(self.identity.with_suffix(".pub").read_text())
            host.boot()
        known = "".join(f"{host.address},{host.name} {host.public_key}\n" for host in self.machines.values())
        self.known_hosts.write_text(known)

    def close(self) -> None:
        """Switch every host off and remove everything."""
        close(self.name)

    @property
    def hosts(self) -> list[str]:
        """The hosts' names."""
        return list(self.machines)

    @property
    def identity(self) -> Path:
        """The private key that may log in."""
        return self.folder / "identity"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys."""
        return self.folder / "known_hosts"

    @property
    def ssh(self) -> dict[str, str]:
        """A target's section `ssh`."""
        return {"user": "root", "identity": str(self.identity), "known_hosts": str(self.known_hosts)}

    def address(self, host: str) -> str:
        """A host's IP address."""
        return self.machines[host].address

    def home(self, host: str) -> Path:
        """Where a host's home lies on this machine."""
        return self.machines[host].home

    def target(self, **changes: Any) -> Path:
        """Write a target file of kind ssh with all hosts; `changes` are laid on it (mappings key by key)."""
        hosts = [{"name": name, "address": host.address} for name, host in self.machines.items()]
        target = {
            "kind": "ssh",
            "hosts": hosts,
            "devices_per_host": 1,
            "device": "cpu",
            "threads_per_process": 1,
            "workdir": "~/slipway",
            "environment": {"mode": "python", "python": f"{sys.prefix}/bin/python", "torch": "cpu"},
            "ssh": self.ssh,
        }
        self._targets += 1
        path = self.folder / f"target-{self._targets}.yaml"
        path.write_text(dump(merge(target, changes)))
        return path

    def shape(self, rate: str, *hosts: str) -> None:
        """Limit the links of hosts (all, where none is named) to a rate as `tc` writes it: `1gbit`, `200mbit`."""
        for host in hosts or self.hosts:
            self.network.shape(host, rate)

    def unshape(self, *hosts: str) -> None:
        """Take the limit away."""
        for host in hosts or self.hosts:
            self.network.shape(host, None)

    def poweroff(self, host: str) -> None:
        """Switch a host off as a power cut does: silence, no goodbye; its files stay."""
        self.machines[host].poweroff()

    def boot(self, host: str) -> None:
        """Switch a host on again, with the same address and host key."""
        self.machines[host].boot()

    def drop(self, host: str) -> None:
        """Take a host's cable out: it lives on, and nobody hears it."""
        self.network.cut(host)

    def undrop(self, host: str) -> None:
        """Put the cable back."""
        self.network.join(host)

    def run_on(self, host: str, command: str, check: bool = True) -> str:
        """Run a shell command on a host, not by ssh; its output."""
        return self.machines[host].run(command, check)

    def processes_on(self, host: str) -> list[psutil.Process]:
        """What runs on a host beside its first process and sshd."""
        return self.machines[host].processes()


def close(name: str) -> None:
    """Remove a lab by its name: processes, namespaces, cables, files."""
    folder = FOLDER / name
    facts = json.loads((folder / "lab.json").read_text())
    network = Network(name, facts["subnet"])
    for host in sorted(path.parent for path in folder.glob("*/ssh")):
        Machine(host.name, 0, host, network, folder / "hosts").poweroff()
    network.close()
    shutil.rmtree(folder, ignore_errors=True)


def remove_deserted() -> None:
    """Remove the labs whose maker has died."""
    for folder in FOLDER.glob("lab*"):
        try:
            facts = json.loads((folder / "lab.json").read_text())
        except (OSError, ValueError):
            continue
        if facts["pid"] is None:
            continue
        try:
            if abs(psutil.Process(facts["pid"]).create_time() - facts["started"]) < 2:
                continue
        except psutil.NoSuchProcess:
            pass
        close(folder.name)


def lab_names() -> list[str]:
    """Every lab that is there."""
    return sorted(path.name for path in FOLDER.glob("lab*"))


def lab_or_skip(count: int = 2) -> Iterator[HostLab]:
    """A lab for a fixture to yield from, or a skipped test where none can be made."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with HostLab(count) as lab:
        yield lab
