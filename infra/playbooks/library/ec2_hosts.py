#!/usr/bin/python
"""Ansible module: starts the instances of one cluster, each with its own address and user data.

The stock module ec2_instance can ask neither for spot capacity nor for an EFA interface, and every host here has user
data of its own (its SSH host key). Runs in the cloud environment, called by create.yml.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "hosts": {"type": "list", "elements": "dict", "required": True},
    "image_id": {"required": True},
    "instance_type": {"required": True},
    "disk_gib": {"type": "int", "required": True},
    "subnet_id": {"required": True},
    "group_id": {"required": True},
    "key_name": {"required": True, "no_log": False},
    "placement_group": {},
    "public_address": {"type": "bool", "required": True},
    "efa": {"type": "bool", "required": True},
    "spot": {"type": "bool", "required": True},
    "token": {"required": True, "no_log": False},
    "tags": {"type": "dict", "required": True},
}


def interface_of(wish: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """The one network interface of a host."""
    interface = {
        "DeviceIndex": 0,
        "SubnetId": wish["subnet_id"],
        "Groups": [wish["group_id"]],
        "AssociatePublicIpAddress": wish["public_address"],
        "DeleteOnTermination": True,
    }
    if host.get("private_address"):
        interface["PrivateIpAddress"] = host["private_address"]
    if wish["efa"]:
        interface["InterfaceType"] = "efa"
    return interface


def request_for(wish: dict[str, Any], host: dict[str, Any], root_device: str) -> dict[str, Any]:
    """What RunInstances is asked for one host."""
    tags = [{"Key": key, "Value": value} for key, value in {**wish["tags"], "Name": host["name"]}.items()]
    kinds = ["instance", "volume", "network-interface", *(["spot-instances-request"] if wish["spot"] else [])]
    request: dict[str, Any] = {
        "ImageId": wish["image_id"],
        "InstanceType": wish["instance_type"],
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": wish["key_name"],
        "UserData": Path(host["user_data"]).read_text(encoding="utf-8"),
        "NetworkInterfaces": [interface_of(wish, host)],
        # The machine ends itself when its time is over, and a machine that is shut down must not go on costing.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [
            {
                "DeviceName": root_device,
                "Ebs": {"VolumeSize": wish["disk_gib"], "VolumeType": "gp3", "DeleteOnTermination": True},
            }
        ],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
        # The same request twice (a network that lost the first answer) starts one machine.
        "ClientToken": hashlib.sha256(f"{wish['token']}-{host['name']}".encode()).hexdigest(),
    }
    if wish["placement_group"]:
        request["Placement"] = {"GroupName": wish["placement_group"]}
    if wish["spot"]:
        once = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": once}
    return request


def shown(name: str, instance: dict[str, Any]) -> dict[str, str]:
    """What the rest of Slipway wants to know of an instance."""
    return {
        "name": name,
        "instance_id": instance["InstanceId"],
        "private_address": instance["PrivateIpAddress"],
        "public_address": instance.get("PublicIpAddress") or "",
        "public_name": instance.get("PublicDnsName") or "",
    }


def main() -> None:
    """Start every host, wait until all run, and describe them."""
    module = AnsibleAWSModule(argument_spec=ARGUMENTS)
    wish = module.params
    client = module.client("ec2")
    names: dict[str, str] = {}
    doing = f"the image {wish['image_id']}"
    try:
        root_device = client.describe_images(ImageIds=[wish["image_id"]])["Images"][0]["RootDeviceName"]
        for host in wish["hosts"]:
            doing = f"{host['name']} ({wish['instance_type']})"
            answer = client.run_instances(**request_for(wish, host, root_device))
            names[answer["Instances"][0]["InstanceId"]] = host["name"]
        doing = "waiting until all instances run"
        client.get_waiter("instance_running").wait(InstanceIds=list(names))
        answer = client.describe_instances(InstanceIds=list(names))
    except (ClientError, BotoCoreError, WaiterError) as error:
        module.fail_json(msg=f"{doing}: {error}")
    found = {i["InstanceId"]: i for reservation in answer["Reservations"] for i in reservation["Instances"]}
    module.exit_json(changed=True, hosts=[shown(name, found[key]) for key, name in names.items()])


if __name__ == "__main__":
    main()
