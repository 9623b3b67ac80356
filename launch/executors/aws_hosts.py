"""A target of kind aws, with the hosts that `slipway up` has rented for it: the SSH executor can serve it then."""

from __future__ import annotations

from pathlib import Path

from infra.aws_cluster import ClusterFolder
from infra.guard import limit_reached
from kit.errors import UserError
from kit.target import AwsSettings, Host, SshSettings, Target


def cluster_hosts(target: Target, runs: Path) -> Target:
    """Returns the target with hosts, login and price of its cluster.

    Args:
        target: Of kind aws.
        runs: The folder of runs, which has the cluster's record.

    Raises:
        UserError: The cluster is not there, or not ready, or its time is over.
    """
    settings = target.aws or AwsSettings()
    folder = ClusterFolder(runs, settings.cluster)
    if not folder.exists():
        raise UserError(
            f"no cluster {settings.cluster!r} under {folder.clusters}",
            expected="the machines of the target, rented",
            action="rent them with `slipway up --on TARGET`; it shows the price first",
        )
    cluster = folder.read()
    if cluster.state != "ready":
        raise UserError(
            f"the cluster {cluster.name!r} is half made, or being made",
            expected="one that is ready",
            action=f"wait for its `slipway up`, or remove it with `slipway down --cluster {cluster.name}`",
        )
    reason = limit_reached(cluster, ahead=True)
    if reason:
        raise UserError(
            reason, expected="time left for a run", action="`slipway down`, then `slipway up` with another limit"
        )
    public = cluster.settings.use_public_addresses
    ssh = (target.ssh or SshSettings()).model_copy(
        update={"user": cluster.user, "identity": str(folder.key), "known_hosts": str(folder.known_hosts)}
    )
    return target.model_copy(
        update={
            "hosts": [Host(name=host.name, address=host.address(public)) for host in cluster.hosts],
            "ssh": ssh,
            "usd_per_hour": cluster.usd_per_hour,
        }
    )


def cluster_limit(target: Target, runs: Path) -> str | None:
    """Says which limit the target's cluster will soon have reached; None: none, or there is no cluster."""
    folder = ClusterFolder(runs, (target.aws or AwsSettings()).cluster)
    return limit_reached(folder.read(), ahead=True) if folder.exists() else None
