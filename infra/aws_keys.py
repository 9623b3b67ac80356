"""Keys of a cluster, and what its instances are told at their first boot.

The SSH host keys are made here and sent along as user data. So known_hosts is complete before the first connection, and
no host is trusted because it was the first to answer.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.aws_cluster import Cluster, ClusterFolder
from kit.errors import UserError
from kit.files import atomic_write

# What `prepare` needs on a host to make the project's environment there; for a container it is nothing.
PACKAGES = ["python3.11", "python3.11-venv", "python3.11-dev", "g++", "rsync"]


def make_keys(folder: ClusterFolder, hosts: list[str]) -> None:
    """Make the login key and a host key for every host; private parts are readable for their owner alone."""
    for path, comment in [(folder.key, f"slipway-{folder.name}"), *((host_key(folder, name), name) for name in hosts)]:
        path.parent.mkdir(exist_ok=True)
        _make_key(path, comment)


def host_key(folder: ClusterFolder, host: str) -> Path:
    """The private host key of one host."""
    return folder.path / "hosts" / f"{host}.key"


def user_data_file(folder: ClusterFolder, host: str) -> Path:
    """What one host is told at its first boot."""
    return folder.path / "hosts" / f"{host}.user-data"


def write_user_data(folder: ClusterFolder, host: str, user: str, until: datetime) -> Path:
    """Write the user data of one host."""
    key = host_key(folder, host)
    login = folder.key.with_suffix(".pub").read_text(encoding="utf-8")
    text = user_data(user, login, key.read_text(encoding="utf-8"), public_key(key), until)
    path = user_data_file(folder, host)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def user_data(user: str, login_key: str, private_host_key: str, public_host_key: str, until: datetime) -> str:
    """What cloud-init is told.

    Args:
        user: A login with sudo and without a password.
        login_key: Who may log in.
        private_host_key, public_host_key: The SSH host key.
        until: When the machine ends itself.
    """
    seconds = f'left=$(( {int(until.timestamp())} - $(date +%s) )); [ "$left" -gt 60 ] || left=60'
    settings: dict[str, Any] = {
        # At every boot and before anything else: whatever becomes of the launcher, the machine switches itself off, and
        # an instance that is switched off from inside is terminated (InstanceInitiatedShutdownBehavior).
        "bootcmd": [
            ["sh", "-c", f'{seconds}; systemd-run --unit=slipway-until --on-active="$left" systemctl poweroff']
        ],
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": private_host_key, "ed25519_public": public_host_key},
        "ssh_pwauth": False,
        "package_update": True,
        "packages": PACKAGES,
    }
    login = {
        "name": user,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [login_key.strip()],
    }
    if user == "root":
        settings |= {"disable_root": False, "ssh_authorized_keys": [login_key.strip()]}
    else:
        settings["users"] = ["default", login]
    # JSON is YAML, and has one way to write a key with line ends.
    return "#cloud-config\n" + json.dumps(settings, indent=1) + "\n"


def public_key(key: Path) -> str:
    """Type and key of a pair's public part."""
    return " ".join(key.with_suffix(key.suffix + ".pub").read_text(encoding="utf-8").split()[:2])


def write_known_hosts(folder: ClusterFolder, cluster: Cluster) -> None:
    """Write the hosts' keys under every name and address that they have."""
    lines = []
    for host in cluster.hosts:
        words = (host.name, host.private_address, host.public_address, host.public_name)
        names = ",".join(dict.fromkeys(word for word in words if word))
        lines.append(f"{names} {public_key(host_key(folder, host.name))}\n")
    atomic_write(folder.known_hosts, "".join(lines))


def _make_key(path: Path, comment: str) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UserError(
            "no ssh-keygen on this machine",
            expected="OpenSSH's client programs",
            action="Debian and Ubuntu: apt install openssh-client",
        ) from None
    os.chmod(path, 0o600)
