"""`slipway up`: rents the machines of a target, after saying what they cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra import aws
from infra.aws_cluster import Cluster, ClusterFolder, limit_hours
from infra.rent import existing, rent
from kit.config import load
from kit.errors import UserError
from kit.target import AwsSettings, Target
from launch.cloud_price import usd_per_host_hour
from launch.console import Console, table
from launch.recipe_files import find_target
from launch.verbs.arguments import Answer

HELP = "rent the machines of a target; shows the price first"
EXAMPLES = """examples:
  slipway up --on aws
  slipway up --on my-cluster.yaml --target-set aws.max_hours=2 --yes
  slipway up --on aws --yes --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_target_arguments(parser, required=True)
    parser.add_argument("--yes", action="store_true", help="do not ask before renting")


def add_target_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """A target of kind aws, and what changes it."""
    parser.add_argument("--on", required=required, metavar="TARGET", help="target of kind aws: a name or a path")
    parser.add_argument("--target-set", action="append", default=[], metavar="a=b", help="change a key of the target")


def rented_target(arguments: argparse.Namespace) -> tuple[Target, AwsSettings]:
    """The target and its section aws.

    Raises:
        UserError: It is of another kind.
    """
    path = find_target(arguments.on)
    target = load(Target, path, arguments.target_set)
    if target.kind != "aws":
        raise UserError(
            f"{path} is of kind {target.kind}",
            expected="a target of kind aws: nothing else is rented",
            action="run on it as it is (`slipway run RECIPE --on TARGET`), or start from launch/targets/aws.yaml",
        )
    return target, target.aws or AwsSettings()


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Show the price, ask, and make the cluster; find the one that is there."""
    target, settings = rented_target(arguments)
    price, source = usd_per_host_hour(target)
    cluster = existing(arguments.runs, settings)
    created = cluster is None
    if cluster is None:
        found = aws.preflight(settings, target.device)
        _refuse_strangers(settings, found)
        console.say(costs(settings, price, source, found))
        if not arguments.yes:
            _ask(console)
        user = target.ssh.user if target.ssh else None
        cluster = rent(arguments.runs, settings, found, price, user, console.say)
    else:
        console.say(f"The cluster {cluster.name!r} is there already.")
    return Answer(0, _shown(arguments.runs, cluster, created, arguments.on, console))


def costs(settings: AwsSettings, price: float, source: str, found: aws.Preflight) -> str:
    """What is about to be rented, and for how much at most."""
    hours = limit_hours(settings, price)
    hourly = price * settings.count
    note = " (the on-demand price; spot costs less)" if settings.capacity == "spot" else ""
    rows = [
        ("Instances", f"{settings.count} x {settings.instance_type}, {settings.capacity}, {settings.region}"),
        ("Price", f"{hourly:,.2f} USD an hour{note}: {price:,.2f} for each, from {source}"),
        ("At most", f"{hourly * hours:,.2f} USD: everything is destroyed after {hours:.4g} hours"),
        ("Not in it", "disks, addresses and traffic, which AWS bills beside the instances"),
        ("Account", found.identity),
    ]
    return "\n".join(f"{name.ljust(9)}  {value}" for name, value in rows)


def _refuse_strangers(settings: AwsSettings, found: aws.Preflight) -> None:
    if found.there:
        kinds = ", ".join(f"{len(ids)} {kind}" for kind, ids in found.there.items())
        raise UserError(
            f"{settings.region} has a cluster {settings.cluster!r} already, of which nothing is known here: {kinds}",
            expected="a name that is free",
            action="choose another aws.cluster, or end that one with `slipway down --on TARGET`",
        )


def _ask(console: Console) -> None:
    if console.as_json or not sys.stdin.isatty():
        raise UserError(
            "nobody can be asked: no terminal",
            expected="--yes where a program rents",
            action="add --yes if these costs are right",
        )
    console.say("Rent them? Type yes to go on.")
    if sys.stdin.readline().strip().lower() not in ("yes", "y"):
        raise UserError("no yes", expected="yes", action="nothing was made; `slipway up` asks again")


def _shown(runs: Path, cluster: Cluster, created: bool, on: str, console: Console) -> dict[str, object]:
    folder = ClusterFolder(runs, cluster.name)
    public = cluster.settings.use_public_addresses
    rows: list[tuple[str, ...]] = [
        (host.name, host.address(public), host.private_address, host.instance_id) for host in cluster.hosts
    ]
    console.say(table(("HOST", "ADDRESS", "PRIVATE", "INSTANCE"), rows))
    console.say(f"Log in:   ssh -i {folder.key} -o UserKnownHostsFile={folder.known_hosts} {cluster.user}@{rows[0][1]}")
    console.say(f"Use them: slipway run RECIPE --on {on}")
    console.say(f"End:      {cluster.until:%Y-%m-%d %H:%M} UTC at the latest; sooner with slipway down --on {on}")
    return {
        "cluster": cluster.name,
        "created": created,
        "hosts": [host.model_dump() for host in cluster.hosts],
        "inventory": str(folder.inventory),
        "usd_per_hour": cluster.usd_per_hour * cluster.settings.count,
        "usd_at_most": round(cluster.usd_per_hour * cluster.settings.count * cluster.limit_hours, 2),
        "until": cluster.until.isoformat(),
    }
