"""What is known of a rented cluster: one folder, clusters/<name>, beside the runs.

cluster.json says what was asked for and what was made; beside it lie the keys. Credentials of AWS never do.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from kit.config import Config, dump, parse
from kit.errors import UserError
from kit.files import atomic_write
from kit.target import AwsSettings

FOLDER = "clusters"


class ClusterHost(Config):
    """One instance.

    Attributes:
        public_name: Means the public address outside of the cluster's network, the private one inside.
    """

    name: str
    instance_id: str = ""
    private_address: str = ""
    public_address: str = ""
    public_name: str = ""

    def address(self, public: bool) -> str:
        """Where launcher and hosts alike reach it."""
        return (self.public_name or self.public_address) if public else self.private_address


class Cluster(Config):
    """The record of one cluster.

    Attributes:
        settings: As the target had them when it was made.
        state: creating until everything is there.
        user: Who logs in.
        created: When its making began (UTC); costs are counted from here.
        usd_per_hour: Price of one instance.
    """

    name: str
    settings: AwsSettings
    state: Literal["creating", "ready"]
    user: str
    image_id: str
    zone: str
    created: datetime
    usd_per_hour: float
    hosts: list[ClusterHost] = []

    @property
    def limit_hours(self) -> float:
        """Hours that it may live: what max_hours and max_cost_usd leave."""
        return limit_hours(self.settings, self.usd_per_hour)

    @property
    def until(self) -> datetime:
        """When it ends."""
        return self.created + timedelta(hours=self.limit_hours)

    def hours(self, now: datetime | None = None) -> float:
        """How long it has been there."""
        return ((now or datetime.now(UTC)) - self.created).total_seconds() / 3600

    def cost_usd(self, now: datetime | None = None) -> float:
        """What its instances have cost so far, without disks and traffic."""
        return self.hours(now) * self.usd_per_hour * self.settings.count


def limit_hours(settings: AwsSettings, usd_per_hour: float) -> float:
    """Hours that a cluster may live: what max_hours and max_cost_usd leave."""
    if settings.max_cost_usd is None:
        return settings.max_hours
    return min(settings.max_hours, settings.max_cost_usd / (usd_per_hour * settings.count))


class ClusterFolder:
    """The folder of one cluster and the names of what lies in it."""

    def __init__(self, runs: Path, name: str) -> None:
        self.clusters = Path(runs).resolve() / FOLDER
        self.name = name
        self.path = self.clusters / name
        self.record = self.path / "cluster.json"
        self.key = self.path / "key"
        self.known_hosts = self.path / "known_hosts"
        self.inventory = self.path / "inventory.yaml"
        self.made = self.path / "made.json"

    @classmethod
    def at(cls, path: Path) -> ClusterFolder:
        """The folder with a path."""
        path = Path(path).resolve()
        return cls(path.parent.parent, path.name)

    def exists(self) -> bool:
        """Whether a cluster of this name was made, or begun, from here."""
        return self.record.is_file()

    def make(self) -> None:
        """Make the folder, which others must not read.

        Raises:
            UserError: It is there, so somebody else is making, or has made, the same cluster.
        """
        self.clusters.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise UserError(
                f"{self.path}: a cluster {self.name!r} that is being made, or was left half made",
                expected="one `slipway up` at a time for one cluster",
                action=f"wait for the other one, or remove its leavings with `slipway down --cluster {self.name}`",
            ) from None

    def read(self) -> Cluster:
        """Read the record.

        Raises:
            UserError: There is none, or it can't be read.
        """
        if not self.exists():
            raise UserError(
                f"no cluster {self.name!r} under {self.clusters}",
                expected="one that was made from here, with the same --runs folder",
                action="make it with `slipway up --on TARGET`, or name the target to `slipway down --on TARGET`",
            )
        try:
            data = json.loads(self.record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{self.record}: {error}",
                expected="the JSON that `slipway up` wrote",
                action="`slipway down --on TARGET` ends the cluster without it",
            ) from None
        return parse(Cluster, data, str(self.record))

    def write(self, cluster: Cluster) -> None:
        """Write the record."""
        atomic_write(self.record, json.dumps(cluster.model_dump(mode="json"), indent=2) + "\n")

    def write_inventory(self, cluster: Cluster) -> None:
        """Write the hosts for Ansible, for whoever wants to use it by hand."""
        atomic_write(self.inventory, dump(inventory_of(self, cluster)))

    def close(self, cluster: Cluster | None, why: str) -> None:
        """Remove the folder with its keys; a line in clusters/history.jsonl stays."""
        if cluster:
            line = {
                "cluster": self.name,
                "created": cluster.created.isoformat(),
                "destroyed": datetime.now(UTC).isoformat(),
                "why": why,
                "instances": cluster.settings.count,
                "instance_type": cluster.settings.instance_type,
                "hours": round(cluster.hours(), 4),
                "cost_usd": round(cluster.cost_usd(), 2),
            }
            with (self.clusters / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        shutil.rmtree(self.path, ignore_errors=True)


def inventory_of(folder: ClusterFolder, cluster: Cluster) -> dict[str, Any]:
    """An Ansible inventory of the cluster's hosts."""
    public = cluster.settings.use_public_addresses
    return {
        "all": {
            "hosts": {host.name: {"ansible_host": host.address(public)} for host in cluster.hosts},
            "vars": {
                "ansible_user": cluster.user,
                "ansible_ssh_private_key_file": str(folder.key),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder.known_hosts} -o StrictHostKeyChecking=yes",
            },
        }
    }
