"""`slipway down`: destroys a rented cluster, and looks afterwards that nothing is left."""

from __future__ import annotations

import argparse

from infra.aws_cluster import Cluster, ClusterFolder
from infra.rent import give_back
from kit.errors import UserError
from kit.target import AwsSettings
from launch.console import Console
from launch.verbs.arguments import Answer
from launch.verbs.up import add_target_arguments, rented_target

HELP = "destroy a rented cluster, whole or half made"
EXAMPLES = """examples:
  slipway down --on aws
  slipway down --cluster slipway
  slipway down --on aws --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_target_arguments(parser, required=False)
    parser.add_argument("--cluster", metavar="NAME", help="a cluster that was made from here, by its name")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Destroy, verify, and say what it has cost."""
    settings, cluster = _meant(arguments)
    removed = give_back(arguments.runs, settings, console.say, "slipway down")
    counts = {kind: len(ids) for kind, ids in removed.items()}
    if removed:
        words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        console.say(f"Removed: {words}.")
    console.say(f"Nothing with the tag slipway-cluster={settings.cluster} is left in {settings.region}.")
    data = {"cluster": settings.cluster, "removed": counts, "left": 0}
    if cluster:
        console.say(f"It was there for {cluster.hours():.2f} hours: {cluster.cost_usd():.2f} USD for its instances.")
        data |= {"hours": round(cluster.hours(), 4), "cost_usd": round(cluster.cost_usd(), 2)}
    return Answer(0, data)


def _meant(arguments: argparse.Namespace) -> tuple[AwsSettings, Cluster | None]:
    """Which cluster; one that was made from here is ended as it was made, whatever the target file says by now."""
    if bool(arguments.on) == bool(arguments.cluster):
        raise UserError(
            "both --on and --cluster" if arguments.on else "neither --on nor --cluster",
            expected="one of them",
            action="name the target (`slipway down --on aws`) or the cluster",
        )
    settings = None if arguments.cluster else rented_target(arguments)[1]
    folder = ClusterFolder(arguments.runs, settings.cluster if settings else arguments.cluster)
    if settings and not folder.exists():
        return settings, None
    cluster = folder.read()
    return cluster.settings, cluster
