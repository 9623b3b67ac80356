"""Questions to AWS, asked by the cloud environment's Python: `python aws_query.py QUESTION`, JSON in and JSON out.

Nothing here changes anything. Standard library and boto3 only; called by infra/aws.py, never imported by it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

RETRIES = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 3})
ALIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]
# What a cluster consists of: the call that lists it, the answer's key, the id's key.
KINDS = {
    "instances": ("describe_instances", "Reservations", "InstanceId"),
    "spot requests": ("describe_spot_instance_requests", "SpotInstanceRequests", "SpotInstanceRequestId"),
    "volumes": ("describe_volumes", "Volumes", "VolumeId"),
    "network interfaces": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    "key pairs": ("describe_key_pairs", "KeyPairs", "KeyPairId"),
    "placement groups": ("describe_placement_groups", "PlacementGroups", "GroupName"),
    "security groups": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "route tables": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "internet gateways": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "subnets": ("describe_subnets", "Subnets", "SubnetId"),
    "networks": ("describe_vpcs", "Vpcs", "VpcId"),
}


def client_of(wish: dict[str, Any], service: str) -> Any:
    """A client with the credentials of the environment or the profile."""
    return boto3.client(service, region_name=wish["region"], endpoint_url=wish.get("endpoint_url"), config=RETRIES)


def listing(wish: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of everything that bears the cluster's tag, by kind; kinds without any are left out."""
    client = client_of(wish, "ec2")
    ours = {"Name": "tag:slipway-cluster", "Values": [wish["cluster"]]}
    found = {}
    for kind, (call, key, identifier) in KINDS.items():
        if kind == "placement groups" and not wish["close_together"]:
            continue  # none was made, and emulators do not know them
        filters = [ours]
        if kind == "instances":
            filters = [ours, {"Name": "instance-state-name", "Values": ALIVE}]
        if kind == "spot requests":
            filters = [ours, {"Name": "state", "Values": ["open", "active"]}]
        rows = getattr(client, call)(Filters=filters)[key]
        if kind == "instances":
            rows = [instance for reservation in rows for instance in reservation["Instances"]]
        if rows:
            found[kind] = [row[identifier] for row in rows]
    return found


def running(wish: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of the cluster's instances that run, or are about to."""
    ours = {"Name": "tag:slipway-cluster", "Values": [wish["cluster"]]}
    state = {"Name": "instance-state-name", "Values": ALIVE[:2]}
    rows = client_of(wish, "ec2").describe_instances(Filters=[ours, state])["Reservations"]
    return {"instances": [instance["InstanceId"] for row in rows for instance in row["Instances"]]}


def image_of(client: Any, wish: dict[str, Any]) -> str | None:
    """The image's id: as given if it exists, or else the newest with the name."""
    if wish.get("image_id"):
        return str(client.describe_images(ImageIds=[wish["image_id"]])["Images"][0]["ImageId"])
    names = {"Name": "name", "Values": [wish["image_name"]]}
    state = {"Name": "state", "Values": ["available"]}
    images = client.describe_images(Owners=[wish["image_owner"]], Filters=[names, state])["Images"]
    return str(max(images, key=lambda image: image["CreationDate"])["ImageId"]) if images else None


def preflight(wish: dict[str, Any]) -> dict[str, Any]:
    """What has to be known before anything is made: who asks, the image, the zone, what is there already."""
    client = client_of(wish, "ec2")
    who = client_of(wish, "sts").get_caller_identity()["Arn"]
    kind = client.describe_instance_types(InstanceTypes=[wish["instance_type"]])["InstanceTypes"][0]
    here = {"Name": "instance-type", "Values": [wish["instance_type"]]}
    offers = client.describe_instance_type_offerings(LocationType="availability-zone", Filters=[here])
    return {
        "identity": who,
        "image_id": image_of(client, wish),
        "zones": sorted(offer["Location"] for offer in offers["InstanceTypeOfferings"]),
        "efa_supported": bool(kind["NetworkInfo"].get("EfaSupported")),
        "there": listing(wish),
    }


QUESTIONS = {"listing": listing, "running": running, "preflight": preflight}


def main() -> int:
    """Answer one question; an error is an answer with `error` and AWS's `code`."""
    wish = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = QUESTIONS[sys.argv[1]](wish)
    except ClientError as error:
        answer = {"code": error.response["Error"].get("Code", ""), "error": error.response["Error"].get("Message", "")}
    except BotoCoreError as error:
        answer = {"code": type(error).__name__, "error": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
