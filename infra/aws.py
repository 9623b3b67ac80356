"""Rented clusters on AWS: look first, make, wait until they answer, destroy, and look again that nothing is left.

The work is done by the playbooks create.yml and destroy.yml in the cloud environment; questions by aws_query.py there.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import ansible, cloud_environment
from infra.aws_cluster import Cluster, ClusterFolder, ClusterHost
from infra.aws_keys import make_keys, user_data_file, write_known_hosts, write_user_data
from infra.aws_rules import check_settings, error_of
from kit.config import Config
from kit.errors import RunFailure, UserError
from kit.target import AwsSettings

Say = Callable[[str], None]
USER = "slipway"
# Whose image, and its name; the newest one counts. Both have Python 3.11 among their packages.
IMAGES = {
    "cuda": ("amazon", "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"),
    "cpu": ("136693071363", "debian-12-amd64-*"),
}
SSH_SECONDS = 900.0


class Preflight(Config):
    """What AWS says before anything is made.

    Attributes:
        identity: Whose credentials these are.
        zones: Availability zones that have the instance type.
        there: Ids of what bears the cluster's tag already, by kind.
    """

    identity: str
    image_id: str
    zones: list[str]
    efa_supported: bool
    there: dict[str, list[str]]


def ask(question: str, settings: AwsSettings, **more: Any) -> dict[str, Any]:
    """Ask AWS something, in the cloud environment.

    Raises:
        UserError: Credentials are missing, old or not allowed to; or a setting that AWS does not know.
        RunFailure: AWS can't be reached.
    """
    python = cloud_environment.require() / "python"
    script = Path(__file__).with_name("aws_query.py")
    where = {"region": settings.region, "endpoint_url": settings.endpoint_url, "cluster": settings.cluster}
    wish = {**where, "close_together": settings.efa, **more}
    result = subprocess.run(
        [python, script, question], input=json.dumps(wish), capture_output=True, text=True, check=False
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise error_of("", lines[-1], settings)
    answer: dict[str, Any] = json.loads(result.stdout)
    if "error" in answer:
        raise error_of(answer["code"], answer["error"], settings)
    return answer


def preflight(settings: AwsSettings, device: str) -> Preflight:
    """Check settings and credentials; makes nothing.

    Args:
        settings: Of the target.
        device: cpu or cuda; decides on the image where none is named.

    Raises:
        SlipwayError: As `ask`; also for settings that can't be right.
    """
    check_settings(settings)
    owner, name = IMAGES["cuda" if device == "cuda" else "cpu"]
    wish = {"instance_type": settings.instance_type, "image_id": settings.image_id}
    answer = ask("preflight", settings, **wish, image_owner=owner, image_name=name)
    where = settings.endpoint_url or f"AWS, region {settings.region}"
    if not answer["image_id"]:
        raise UserError(
            f"{where} has no image called {name!r}",
            expected="one, since aws.image_id is not set",
            action="name an image in aws.image_id (Python 3.11 among its packages, cloud-init inside)",
        )
    if not answer["zones"]:
        raise UserError(
            f"{where} offers no {settings.instance_type}",
            expected="an instance type that one of its zones has",
            action="change aws.region or aws.instance_type",
        )
    if settings.efa and not answer["efa_supported"]:
        raise UserError(
            f"aws.efa is set, and {settings.instance_type} has no EFA interface",
            expected="an instance type with EFA, or efa: false",
            action="write `efa: false` under aws",
        )
    return Preflight.model_validate(answer)


def begin(runs: Path, settings: AwsSettings, found: Preflight, usd_per_hour: float, user: str | None = None) -> Cluster:
    """Write the record of a cluster that is about to be made; its limits count from now.

    Args:
        runs: The folder of runs; the cluster's folder is made in it.
        settings: Of the target.
        found: What `preflight` said.
        usd_per_hour: Price of one instance.
        user: The login that the hosts get; None: `slipway`.

    Raises:
        UserError: A cluster of this name is there, or is being made.
    """
    folder = ClusterFolder(runs, settings.cluster)
    folder.make()
    cluster = Cluster(
        name=settings.cluster,
        settings=settings,
        state="creating",
        user=user or USER,
        image_id=found.image_id,
        zone=found.zones[0],
        created=datetime.now(UTC),
        usd_per_hour=usd_per_hour,
        hosts=[ClusterHost(name=f"{settings.cluster}-{number + 1}") for number in range(settings.count)],
    )
    folder.write(cluster)
    return cluster


def build(runs: Path, cluster: Cluster, say: Say) -> Cluster:
    """Make the machines of a cluster that has begun.

    Raises:
        RunFailure: AWS refused something, which is named; what was made until then is still there.
    """
    folder = ClusterFolder(runs, cluster.name)
    names = [host.name for host in cluster.hosts]
    make_keys(folder, names)
    for name in names:
        write_user_data(folder, name, cluster.user, cluster.until)
    run(cluster.settings, "create", create_variables(folder, cluster), say)
    made = json.loads(folder.made.read_text(encoding="utf-8"))
    cluster = cluster.model_copy(update={"hosts": [ClusterHost.model_validate(host) for host in made["hosts"]]})
    write_known_hosts(folder, cluster)
    folder.write_inventory(cluster)
    folder.write(cluster)
    return cluster


def create_variables(folder: ClusterFolder, cluster: Cluster) -> dict[str, Any]:
    """The variables of create.yml. Keys are named by their files, so that no log can hold one."""
    settings = cluster.settings
    given = dict(zip([host.name for host in cluster.hosts], settings.private_addresses, strict=False))
    instances = [
        {
            "name": host.name,
            "private_address": given.get(host.name, ""),
            "user_data": str(user_data_file(folder, host.name)),
        }
        for host in cluster.hosts
    ]
    return {
        "ends": cluster.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "network": settings.network,
        "zone": cluster.zone,
        "use_public_addresses": settings.use_public_addresses,
        "ssh_from": settings.allow_ssh_from,
        "public_key": str(folder.key.with_suffix(".pub")),
        "instances": instances,
        "image_id": cluster.image_id,
        "instance_type": settings.instance_type,
        "disk_gib": settings.disk_gib,
        "efa": settings.efa,
        "capacity": settings.capacity,
        "record": str(folder.made),
    }


def run(settings: AwsSettings, playbook: str, variables: Mapping[str, Any], say: Say) -> None:
    """Run one of the two playbooks in the cloud environment."""
    programs = cloud_environment.require()
    local = {"ansible_connection": "local", "ansible_python_interpreter": str(programs / "python")}
    inventory = {"all": {"hosts": {"localhost": local}}}
    where = {"cluster": settings.cluster, "region": settings.region, "endpoint_url": settings.endpoint_url or ""}
    # Hosts that talk by EFA shall stand close together; a placement group is made for them alone.
    fixed = {**where, "close_together": settings.efa}
    ansible.run_playbook(playbook, inventory, {**fixed, **variables}, say, environment_bin=programs)


def wait_for_ssh(runs: Path, cluster: Cluster, say: Say, seconds: float = SSH_SECONDS) -> Cluster:
    """Wait until every host can be logged in to and has finished its first boot; the cluster is ready then.

    Raises:
        RunFailure: A host did not answer in time, or showed another key than the one it was given.
    """
    folder = ClusterFolder(runs, cluster.name)
    deadline = time.monotonic() + seconds
    for host in cluster.hosts:
        say(f"Waiting for {host.name} ({host.address(cluster.settings.use_public_addresses)}) to answer by SSH.")
        while (trouble := _try_ssh(folder, cluster, host)) is not None:
            if "IDENTIFICATION HAS CHANGED" in trouble or time.monotonic() > deadline:
                raise RunFailure(
                    f"{host.name} can't be logged in to: {trouble.strip().splitlines()[-1]}",
                    expected=f"SSH with the host key that it was given, within {seconds:.0f} seconds",
                    action=f"is {cluster.settings.allow_ssh_from} (aws.allow_ssh_from) the address you come from?",
                )
            time.sleep(2)
    ready = cluster.model_copy(update={"state": "ready"})
    folder.write(ready)
    return ready


def _try_ssh(folder: ClusterFolder, cluster: Cluster, host: ClusterHost) -> str | None:
    """Why a host can't be logged in to; None: it can, and its first boot is over."""
    options = ("BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes")
    words = ["ssh", *(word for option in options for word in ("-o", option))]
    words += ["-o", f"UserKnownHostsFile={folder.known_hosts}", "-i", str(folder.key), "-l", cluster.user]
    first_boot = "! command -v cloud-init >/dev/null || cloud-init status --wait >/dev/null; true"
    words += [host.address(cluster.settings.use_public_addresses), first_boot]
    try:
        result = subprocess.run(
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=SSH_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "its first boot does not end"
    return None if result.returncode == 0 else result.stderr or f"ssh ended with {result.returncode}"


def is_whole(cluster: Cluster) -> bool:
    """Whether AWS still runs every instance of a cluster."""
    there = ask("running", cluster.settings)["instances"]
    return bool(cluster.hosts) and {host.instance_id for host in cluster.hosts} <= set(there)


def destroy(runs: Path, settings: AwsSettings, say: Say, why: str) -> dict[str, list[str]]:
    """Remove everything that bears the cluster's tag, and look afterwards that nothing is left.

    Args:
        runs: The folder of runs.
        settings: Whose cluster, region and endpoint are meant.
        say: Told what happens.
        why: For the line in clusters/history.jsonl.

    Returns:
        What was there before, ids by kind.

    Raises:
        RunFailure: Something is left; it is named, and the cluster's folder stays.
    """
    folder = ClusterFolder(runs, settings.cluster)
    before = ask("listing", settings)
    if before:
        run(settings, "destroy", {}, say)
    left = ask("listing", settings) if before else {}
    if left:
        words = "; ".join(f"{kind}: {', '.join(ids)}" for kind, ids in left.items())
        raise RunFailure(
            f"still there of the cluster {settings.cluster!r} in {settings.region}: {words}",
            expected="nothing with its tag",
            action=f"`slipway down --cluster {settings.cluster}` once more, or remove it in AWS's console",
        )
    if folder.path.is_dir():
        folder.close(folder.read() if folder.exists() else None, why)
    return before
