"""Renting and giving back: `slipway up` and `slipway down`, without the questions."""

from __future__ import annotations

from pathlib import Path

from infra import aws, guard
from infra.aws import Preflight, Say
from infra.aws_cluster import Cluster, ClusterFolder
from kit.errors import SlipwayError, UserError
from kit.target import AwsSettings


def existing(runs: Path, settings: AwsSettings) -> Cluster | None:
    """The cluster that was made from here and still runs whole; None: there is none.

    Raises:
        UserError: There is one, but only by half, or some of its instances have ended.
    """
    folder = ClusterFolder(runs, settings.cluster)
    if not folder.exists():
        return None
    cluster = folder.read()
    # Asked even where the record says enough: credentials that are missing or old show before anything else.
    if not aws.is_whole(cluster) or cluster.state != "ready":
        what = "is half made, or being made" if cluster.state != "ready" else "has lost instances"
        raise UserError(
            f"the cluster {cluster.name!r} {what} ({folder.record})",
            expected="all of its instances, running",
            action=f"wait for another `slipway up`, or `slipway down --cluster {cluster.name}` and up again",
        )
    if cluster.settings != settings:
        changed = [key for key, value in settings if getattr(cluster.settings, key) != value]
        raise UserError(
            f"the cluster {cluster.name!r} was made with another {', '.join(f'aws.{key}' for key in changed)}",
            expected="the settings that it was made with",
            action=f"`slipway down --cluster {cluster.name}` first, or another aws.cluster for a second one",
        )
    return cluster


def rent(
    runs: Path, settings: AwsSettings, found: Preflight, usd_per_hour: float, user: str | None, say: Say
) -> Cluster:
    """Make a cluster, guarded from its first moment, and wait until its hosts answer.

    Raises:
        SlipwayError: It could not be made or reached; what was made of it is removed again.
    """
    cluster = aws.begin(runs, settings, found, usd_per_hour, user)
    try:
        guard.start(ClusterFolder(runs, cluster.name))
        return aws.wait_for_ssh(runs, aws.build(runs, cluster, say), say)
    except BaseException as error:
        say("It could not be made; what is there of it is removed.")
        try:
            give_back(runs, settings, say, f"could not be made: {error or type(error).__name__}")
        except SlipwayError as second:
            # The first error is the one to mend.
            say(f"And it could not be removed. {second}\nTry: slipway down --cluster {settings.cluster}")
        raise


def give_back(runs: Path, settings: AwsSettings, say: Say, why: str) -> dict[str, list[str]]:
    """Destroy a cluster, whole or half; returns what was there, ids by kind.

    Raises:
        SlipwayError: Something is left, or AWS can't be asked; the guard goes on then.
    """
    process = guard.running(ClusterFolder(runs, settings.cluster))
    removed = aws.destroy(runs, settings, say, why)
    guard.end(process)
    return removed
